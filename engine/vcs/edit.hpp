// What a model wants changed, taken as unique search and replace (docs/adr/0040): never by line number, never
// fuzzy. Pure.
#pragma once

#include "base/error.hpp"

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace heal::vcs {

struct Edit {
    std::string file;  ///< as the text names it, "a/" and "b/" of diffs cut
    std::string
        search;  ///< lines that must be there exactly once; "" creates the file, which must not be there
    std::string replace;   ///< what takes their place
    unsigned ordinal = 0;  ///< from 1, for messages
};

/// Reads SEARCH/REPLACE blocks, unified diffs (counts and line numbers are not looked at) and "*** Begin
/// Patch" forms, also within ``` fences and among prose.
/// @param default_file  for a block that names none; "": such a block is an error
/// errc::invalid_input: no edit in it, a block without its end, an edit without a file.
result<std::vector<Edit>> parse_edits(std::string_view text, const std::string& default_file = {});

/// path → whole content after the edits; nothing is written.
using NewFiles = std::map<std::string, std::string>;

/// Per edit: exact, then trailing blanks aside, then indentation aside (re-indented), then outer context
/// lines dropped one by one; each time the match must be unique. A context line that stands for left-out code
/// ("… existing code …") may match any run of lines when what is before and after it is unique.
/// @param read  content of a file of the tree; errc::not_found: it is not there
/// errc::conflict: an edit matches nowhere or more than once; the text has file, edit and the nearest lines,
/// and is meant to be sent back to the model. errc::invalid_input: a path that leaves the tree, or an edit
/// that changes nothing.
result<NewFiles> apply_edits(
    const std::vector<Edit>& edits, const std::function<result<std::string>(const std::string& path)>& read
);

}  // namespace heal::vcs
