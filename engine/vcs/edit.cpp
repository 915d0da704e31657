#include "vcs/edit.hpp"

#include "vcs/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>

namespace heal::vcs {
namespace {

using Lines = std::vector<std::string_view>;

constexpr std::size_t max_text_bytes = 4U << 20U, max_edits = 1000;

bool starts_run(std::string_view line, char c, std::size_t& ret_length) {
    std::size_t n = 0;
    while (n < line.size() && line[n] == c) ++n;
    ret_length = n;
    return n >= 5 && n <= 16;
}

/// The length of the marker when the line is "<<<<<<< SEARCH" and the like, else 0.
std::size_t marker(std::string_view line, char c, std::string_view word) {
    std::size_t n = 0;
    line = trim(line);
    if (!starts_run(line, c, n)) return 0;
    auto rest = trim(line.substr(n));
    if (rest.ends_with(c) && !rest.empty() && c != '=') rest = trim(rest.substr(0, rest.find(c)));
    return rest == word || (word == "SEARCH" && rest == "ORIGINAL") ||
                   (word == "REPLACE" && rest == "UPDATED")
               ? n
               : 0;
}

bool is_fence(std::string_view line) {
    line = trim(line);
    return line.starts_with("```") || line.starts_with("~~~");
}

/// A path as models decorate it: "### `src/a.cpp`:", "**src/a.cpp**", "File: src/a.cpp", "// src/a.cpp".
std::string path_in(std::string_view line) {
    line = trim(line);
    if (is_fence(line)) {
        line = trim(line.substr(std::min(line.find_first_not_of(line.front()), line.size())));
        const auto cut = line.find_first_of(" :");
        if (cut != std::string_view::npos) line = trim(line.substr(cut + 1));
        for (const std::string_view key : {"title=", "file=", "path=", "filename="})
            if (line.starts_with(key)) line.remove_prefix(key.size());
    }
    for (bool more = true; more;) {
        more = false;
        for (const std::string_view word :
             {"#",
              "*",
              "//",
              "--",
              "`",
              "\"",
              "'",
              "file:",
              "File:",
              "FILE:",
              "filename:",
              "Filename:",
              "path:",
              "Path:",
              "- "})
            if (line.starts_with(word)) {
                line = trim(line.substr(word.size()));
                more = true;
            }
    }
    while (!line.empty() && std::string_view{"*`:\"'#/"}.find(line.back()) != std::string_view::npos)
        line.remove_suffix(1);
    if (line.empty() || line.size() > 300) return {};
    for (const char c : line)
        if (std::string_view{" \t<>|*?\"`{}()=,;"}.find(c) != std::string_view::npos ||
            static_cast<unsigned char>(c) < 0x20)
            return {};
    const auto name = line.substr(line.rfind('/') == std::string_view::npos ? 0 : line.rfind('/') + 1);
    const bool known =
        name == "Makefile" || name == "Dockerfile" || name == "CMakeLists.txt" || name == "Rakefile";
    if (!known && line.find('/') == std::string_view::npos) {
        const auto dot = name.rfind('.');
        if (dot == std::string_view::npos || dot + 1 == name.size() || name.size() - dot > 12) return {};
    }
    if (line.find("://") != std::string_view::npos) return {};
    return std::string{line.starts_with("./") ? line.substr(2) : line};
}

std::string joined(const Lines& lines, std::size_t first, std::size_t last) {
    std::string out;
    for (std::size_t i = first; i < last; ++i) (out += lines[i]) += '\n';
    return out;
}

/// Git quotes a path with unusual bytes: "a/\303\244.txt".
std::string unquoted(std::string_view path) {
    if (path.size() < 2 || path.front() != '"' || path.back() != '"') return std::string{path};
    std::string out;
    for (std::size_t i = 1; i + 1 < path.size(); ++i) {
        if (path[i] != '\\' || i + 2 >= path.size()) {
            out += path[i];
            continue;
        }
        const char c = path[++i];
        if (c >= '0' && c <= '3' && i + 3 < path.size()) {
            out += static_cast<char>((c - '0') * 64 + (path[i + 1] - '0') * 8 + (path[i + 2] - '0'));
            i += 2;
        } else {
            out += c == 'n' ? '\n' : c == 't' ? '\t' : c;
        }
    }
    return out;
}

/// "--- a/x.cpp\t2024-01-01" → "a/x.cpp"
std::string header_path(std::string_view line) {
    line = line.substr(4);
    if (const auto tab = line.find('\t'); tab != std::string_view::npos) line = line.substr(0, tab);
    return unquoted(trim(line));
}

class Parser {
public:
    Parser(std::string_view text, const std::string& default_file)
        : lines_(lines_of(text)), default_file_(default_file) {}

    result<std::vector<Edit>> parse() {
        while (at_ < lines_.size()) {
            const auto line = lines_[at_];
            if (marker(line, '<', "SEARCH") > 0) {
                HEAL_TRY(block());
            } else if (marker(line, '>', "REPLACE") > 0) {
                return wrong("'>>>>>>> REPLACE' without its '<<<<<<< SEARCH' before it");
            } else if (trim(line) == "*** Begin Patch") {
                HEAL_TRY(patch());
            } else if (line.starts_with("--- ") && next().starts_with("+++ ")) {
                HEAL_TRY(unified());
            } else if (line.starts_with("@@") && in_fence_ && (!file_.empty() || !default_file_.empty())) {
                HEAL_TRY(hunks(file_.empty() ? default_file_ : file_, true));
            } else {
                HEAL_TRY(refuse_what_is_no_edit(line));
                if (is_fence(line)) in_fence_ = !in_fence_;
                ++at_;
            }
            if (edits_.size() > max_edits)
                return fail(errc::invalid_input, fmt::format("more than {} edits", max_edits));
        }
        if (edits_.empty())
            return fail(
                errc::invalid_input,
                "the text holds no edit: neither a SEARCH/REPLACE block nor a unified diff"
            );
        return std::move(edits_);
    }

private:
    Error wrong(std::string_view what) const {
        return fail(errc::invalid_input, fmt::format("line {}: {}", at_ + 1, what));
    }
    std::string_view next() const { return at_ + 1 < lines_.size() ? lines_[at_ + 1] : std::string_view{}; }

    /// What a diff can say besides lines; left out silently it would be another change than the text means.
    result<void> refuse_what_is_no_edit(std::string_view line) const {
        if (line.starts_with("rename from ") || line.starts_with("rename to ") ||
            line.starts_with("copy from "))
            return wrong("a file cannot be renamed or copied by an edit");
        if (line.starts_with("GIT binary patch") ||
            (line.starts_with("Binary files ") && line.ends_with(" differ")))
            return wrong("a binary file cannot be edited");
        if (line.starts_with("old mode ") || line.starts_with("new mode "))
            return wrong("a file's mode cannot be changed by an edit");
        if (line.starts_with("deleted file mode ")) return wrong("a file cannot be deleted by an edit");
        if (line == "new file mode 120000" || line == "new file mode 160000")
            return wrong("a symbolic link or submodule cannot be made by an edit");
        return {};
    }

    void add(std::string file, std::string search, std::string replace) {
        // The same edit said twice is meant once.
        for (const Edit& e : edits_)
            if (e.file == file && e.search == search && e.replace == replace) return;
        edits_.push_back(
            {std::move(file), std::move(search), std::move(replace), static_cast<unsigned>(edits_.size() + 1)}
        );
    }

    std::string name_before(std::size_t at) const {
        for (std::size_t back = 1, seen = 0; back <= at && seen < 3; ++back) {
            const auto line = lines_[at - back];
            if (trim(line).empty()) continue;
            if (marker(line, '>', "REPLACE") > 0) break;
            ++seen;
            if (auto path = path_in(line); !path.empty()) return path;
            if (!is_fence(line)) break;
        }
        return {};
    }

    result<void> block() {
        const std::size_t start = at_, length = marker(lines_[at_], '<', "SEARCH");
        const auto indent = indentation(lines_[at_]);
        if (auto name = name_before(at_); !name.empty())
            file_ = std::move(name);
        else if (file_.empty())
            file_ = default_file_;
        if (file_.empty())
            return wrong("the block does not say which file it is for; write the path on the line before it");
        std::vector<std::size_t> dividers;
        std::size_t end = 0;
        for (std::size_t i = at_ + 1; i < lines_.size() && end == 0; ++i) {
            if (const auto n = marker(lines_[i], '=', ""); n == length && indentation(lines_[i]) == indent)
                dividers.push_back(i);
            if (const auto n = marker(lines_[i], '<', "SEARCH"); n == length)
                return wrong(
                    "a '<<<<<<< SEARCH' within the block; its end '>>>>>>> REPLACE' is missing, or use "
                    "longer markers"
                );
            if (marker(lines_[i], '>', "REPLACE") == length) end = i;
        }
        if (end == 0) return wrong("the block has no '>>>>>>> REPLACE'");
        if (dividers.size() != 1)
            return wrong(
                dividers.empty() ? "the block has no line '=======' between what is and what shall be"
                                 : "the block holds more than one line '======='; use longer markers for it"
            );
        Lines content = lines_;
        if (!indent.empty())
            for (std::size_t i = start + 1; i < end; ++i)
                if (content[i].starts_with(indent)) content[i].remove_prefix(indent.size());
        add(file_, joined(content, start + 1, dividers[0]), joined(content, dividers[0] + 1, end));
        at_ = end + 1;
        return {};
    }

    result<void> unified() {
        auto from = header_path(lines_[at_]), to = header_path(lines_[at_ + 1]);
        const bool creates = from == "/dev/null";
        if (to == "/dev/null") return wrong("a file cannot be deleted by an edit");
        if (to.starts_with("b/") && (creates || from.starts_with("a/"))) to = to.substr(2);
        if (to.starts_with("./")) to = to.substr(2);
        if (to.empty()) return wrong("the diff does not say which file it is for");
        if (!creates && from.starts_with("a/") && lines_[at_ + 1].substr(4).starts_with("b/") &&
            from.substr(2) != to)
            return wrong("a file cannot be renamed by an edit");
        at_ += 2;
        file_ = to;
        return hunks(to, in_fence_);
    }

    bool ends_hunks(bool fenced) const {
        const auto line = lines_[at_];
        return (fenced && is_fence(line)) || (line.starts_with("--- ") && next().starts_with("+++ ")) ||
               line.starts_with("diff --git ") || line.starts_with("*** ") ||
               marker(line, '<', "SEARCH") > 0 || (line.starts_with("Index: ") && next().starts_with("==="));
    }

    /// From the lines after the header (or at "@@") to the end of the file's part.
    result<void> hunks(const std::string& file, bool fenced) {
        std::string search, replace;
        bool any = false, blank_before = false;
        const auto flush = [&] {
            // Blank lines at the end are those between the diff and what follows it.
            while (search.ends_with("\n\n") && replace.ends_with("\n\n"))
                search.pop_back(), replace.pop_back();
            if (search == "\n" && replace.ends_with("\n\n")) search.clear(), replace.pop_back();
            if (any && search != replace) add(file, search, replace);
            search.clear(), replace.clear();
            any = false;
        };
        while (at_ < lines_.size() && !ends_hunks(fenced)) {
            const auto line = lines_[at_];
            HEAL_TRY(refuse_what_is_no_edit(line));
            if (line.starts_with("@@")) {
                flush();
            } else if (line.starts_with("\\ ")) {
                // "\ No newline at end of file": the file keeps its own end.
            } else if (line.starts_with('+')) {
                (replace += line.substr(1)) += '\n';
                any = true;
            } else if (line.starts_with('-')) {
                (search += line.substr(1)) += '\n';
                any = true;
            } else if (line.empty()) {
                search += '\n', replace += '\n';
            } else {
                // A context line without its mark; after a blank line outside of a fence it is prose.
                if (line.front() != ' ' && !fenced && blank_before) break;
                const auto text = line.front() == ' ' ? line.substr(1) : line;
                (search += text) += '\n';
                (replace += text) += '\n';
            }
            blank_before = line.empty();
            ++at_;
        }
        flush();
        return {};
    }

    result<void> patch() {
        ++at_;
        while (at_ < lines_.size()) {
            const auto line = trim(lines_[at_]);
            if (line == "*** End Patch") {
                ++at_;
                return {};
            }
            if (line.starts_with("*** Delete File:")) return wrong("a file cannot be deleted by an edit");
            if (line.starts_with("*** Move to:")) return wrong("a file cannot be renamed by an edit");
            if (line.starts_with("*** Add File:")) {
                const std::string file{trim(line.substr(13))};
                std::string content;
                for (++at_; at_ < lines_.size() && !lines_[at_].starts_with("***"); ++at_) {
                    if (!lines_[at_].starts_with('+'))
                        return wrong("a line of a new file does not begin with '+'");
                    (content += lines_[at_].substr(1)) += '\n';
                }
                if (file.empty()) return wrong("the name of the file is missing");
                add(file, {}, content);
            } else if (line.starts_with("*** Update File:")) {
                const std::string file{trim(line.substr(16))};
                if (file.empty()) return wrong("the name of the file is missing");
                ++at_;
                if (at_ < lines_.size() && lines_[at_].starts_with("*** Move to:"))
                    return wrong("a file cannot be renamed by an edit");
                HEAL_TRY(hunks(file, true));
            } else if (line == "*** End of File" || line.empty()) {
                ++at_;
            } else {
                return wrong("a line that the patch format does not have");
            }
        }
        return wrong("the patch has no '*** End Patch'");
    }

    Lines lines_;
    const std::string& default_file_;
    std::size_t at_ = 0;
    std::string file_;
    bool in_fence_ = false;
    std::vector<Edit> edits_;
};

// --- applying ---------------------------------------------------------------------------------------------

struct FileLine {
    std::string text;
    std::string end;       ///< "\n", "\r\n" or ""
    unsigned written = 0;  ///< ordinal of the edit that wrote it; 0: as it was
};

enum class Likeness { exact, trailing_blanks, indentation };

bool alike(std::string_view a, std::string_view b, Likeness how) {
    if (how == Likeness::exact) return a == b;
    return how == Likeness::trailing_blanks ? trim_right(a) == trim_right(b) : trim(a) == trim(b);
}

/// Holds something to find a place by: a word of two letters or more.
bool is_anchor(std::string_view line) {
    std::size_t run = 0;
    for (const char c : line) {
        const auto u = static_cast<unsigned char>(c);
        run = std::isalnum(u) != 0 || c == '_' || u >= 0x80 ? run + 1 : 0;
        if (run >= 2) return true;
    }
    return false;
}

/// "// … existing code …", "...", "# rest of the function unchanged". `certain`: the words say so.
bool is_elision(std::string_view line, bool* ret_certain = nullptr) {
    auto text = trim(line);
    bool comment = false;
    for (const std::string_view mark : {"//", "/*", "#", "--", "<!--", ";", "{/*"})
        if (text.starts_with(mark)) {
            text = trim(text.substr(mark.size()));
            comment = true;
            break;
        }
    for (const std::string_view mark : {"*/}", "*/", "-->"})
        if (text.ends_with(mark)) text = trim(text.substr(0, text.size() - mark.size()));
    const bool dots =
        text.starts_with("...") || text.starts_with("…") || text.ends_with("...") || text.ends_with("…");
    if (!dots) return false;
    const std::string words = lower(text);
    bool certain = false;
    for (const char* word :
         {"existing",
          "rest of",
          "unchanged",
          "remaining",
          "omitted",
          "same as",
          "previous code",
          "other code",
          "as before",
          "code here",
          "stays"})
        certain = certain || words.find(word) != std::string::npos;
    const bool only_dots = text.find_first_not_of(". \xe2\x80\xa6") == std::string_view::npos;
    if (ret_certain != nullptr) *ret_certain = certain;
    return certain || only_dots ||
           (comment && text.size() < 60 && (text.ends_with("...") || text.ends_with("…")) &&
            text.starts_with("."));
}

/// Where the search lies in a file: for each line of the search the first line of the file and how many it
/// stands for.
struct Placement {
    struct Span {
        std::size_t first = 0, count = 1;
    };
    std::vector<std::optional<Span>> lines;  ///< nullopt: dropped
    Likeness how = Likeness::exact;
};

struct Found {
    std::optional<Placement> one;
    std::vector<std::size_t> places;  ///< first lines in the file, more than one: ambiguous
};

class OneEdit {
public:
    OneEdit(const Edit& edit, const std::vector<FileLine>& file)
        : edit_(edit), file_(file), search_(lines_of(edit.search)), replace_(lines_of(edit.replace)) {
        ops_ = diff_lines(search_, replace_);
        // How many context lines may go at each end. What is put between two lines keeps the line that it is
        // put to, unless that one only stands for left-out code.
        head_ = search_.size(), tail_ = search_.size();
        std::size_t same = 0;
        bool first_is_insertion = false, last_is_insertion = false, seen = false;
        for (std::size_t i = 0; i < ops_.size(); ++i) {
            if (ops_[i].kind == LineChange::Kind::same) {
                ++same;
                continue;
            }
            if (!std::exchange(seen, true)) {
                head_ = same;
                first_is_insertion = ops_[i].kind == LineChange::Kind::added;
            }
            tail_ = 0;
            for (std::size_t j = i + 1; j < ops_.size() && ops_[j].kind == LineChange::Kind::same; ++j)
                ++tail_;
            last_is_insertion = ops_[i].kind == LineChange::Kind::added &&
                                (i == 0 || ops_[i - 1].kind != LineChange::Kind::removed);
        }
        for (std::size_t i = ops_.size(); last_is_insertion && i-- > 0;) {
            // An insertion after a removal in the same place is held by what is removed.
            if (ops_[i].kind == LineChange::Kind::same && i < ops_.size() - tail_) break;
            if (ops_[i].kind == LineChange::Kind::removed) last_is_insertion = false;
        }
        keep_head_ = first_is_insertion && head_ > 0 ? 1 : 0;
        keep_tail_ = last_is_insertion && tail_ > 0 ? 1 : 0;
        // Blank lines hold nothing.
        while (keep_head_ > 0 && keep_head_ < head_ && trim(search_[head_ - keep_head_]).empty())
            ++keep_head_;
        while (keep_tail_ > 0 && keep_tail_ < tail_ &&
               trim(search_[search_.size() - tail_ + keep_tail_ - 1]).empty())
            ++keep_tail_;
        // Which lines of the search stand for left-out code. Only a line that stays can.
        elided_.assign(search_.size(), false);
        for (const LineChange& op : ops_)
            if (op.kind == LineChange::Kind::same) elided_[op.before] = is_elision(search_[op.before]);
    }

    Found find() const {
        Found found = search(false, 0, search_.size());
        if (found.one || !found.places.empty()) return found;
        const bool elided = std::find(elided_.begin(), elided_.end(), true) != elided_.end();
        if (elided) {
            found = search(true, 0, search_.size());
            if (found.one || !found.places.empty()) return found;
        }
        // Outer lines go one by one; with the same number gone, all that is found must be one place.
        const std::size_t most = droppable(true) + droppable(false);
        for (std::size_t gone = 1; gone <= most; ++gone) {
            std::set<std::size_t> places;
            std::optional<Placement> one;
            for (std::size_t lead = 0; lead <= gone && lead <= droppable(true); ++lead) {
                if (gone - lead > droppable(false)) continue;
                const std::size_t first = lead, last = search_.size() - (gone - lead);
                if (std::none_of(
                        search_.begin() + static_cast<long>(first),
                        search_.begin() + static_cast<long>(last),
                        is_anchor
                    ))
                    continue;
                Found part = search(elided, first, last);
                if (part.one) {
                    places.insert(core_place(*part.one));
                    if (!one || part.one->how < one->how) one = std::move(part.one);
                } else {
                    places.insert(part.places.begin(), part.places.end());
                }
            }
            if (places.empty()) continue;
            if (places.size() == 1 && one) return {std::move(one), {}};
            return {std::nullopt, {places.begin(), places.end()}};
        }
        return {};
    }

    /// The file after it. errc::conflict: it changes what another edit wrote, or writes words for left-out
    /// code.
    result<std::vector<FileLine>> apply(const Placement& at, const std::string& path) const {
        std::size_t first = file_.size(), last = 0;
        for (const auto& span : at.lines)
            if (span) first = std::min(first, span->first), last = std::max(last, span->first + span->count);
        std::vector<FileLine> out(file_.begin(), file_.begin() + static_cast<long>(first));
        const std::string usual = usual_end();
        const Indents indents{*this, at, path};
        std::size_t next = first;
        for (std::size_t i = 0; i < ops_.size(); ++i) {
            const LineChange& op = ops_[i];
            if (op.kind == LineChange::Kind::added) {
                if (!is_held(i, at))
                    return fail(
                        errc::conflict,
                        fmt::format(
                            "edit {} of {}: '{}' stands between left-out lines, so its place cannot be told",
                            edit_.ordinal,
                            edit_.file,
                            trim(replace_[op.after])
                        )
                    );
                const auto text = replace_[op.after];
                bool certain = false;
                if (is_elision(text, &certain) &&
                    (certain || !(path.ends_with(".py") || path.ends_with(".pyi"))) && !stands_in_file(text))
                    return fail(
                        errc::conflict,
                        fmt::format(
                            "edit {} of {} writes '{}' instead of the code itself",
                            edit_.ordinal,
                            edit_.file,
                            trim(text)
                        )
                    );
                auto line = indents.of(i, next);
                if (!line)
                    return fail(
                        errc::conflict,
                        fmt::format(
                            "edit {} of {}: the indentation of '{}' cannot be told; give the lines with the "
                            "file's own indentation",
                            edit_.ordinal,
                            edit_.file,
                            trim(text)
                        )
                    );
                out.push_back({std::move(*line), usual, edit_.ordinal});
                continue;
            }
            const auto& span = at.lines[op.before];
            if (!span) continue;
            if (op.kind == LineChange::Kind::removed) {
                if (file_[span->first].written != 0)
                    return fail(
                        errc::conflict,
                        fmt::format(
                            "edits {} and {} of {} change the same line '{}'",
                            file_[span->first].written,
                            edit_.ordinal,
                            edit_.file,
                            trim(file_[span->first].text)
                        )
                    );
            } else {
                for (std::size_t l = 0; l < span->count; ++l) out.push_back(file_[span->first + l]);
            }
            next = std::max(next, span->first + span->count);
        }
        out.insert(out.end(), file_.begin() + static_cast<long>(last), file_.end());
        // The end of the file stays as it was, whatever line is last now.
        const std::string final_end = file_.empty() ? "\n" : file_.back().end;
        for (std::size_t i = 0; i < out.size(); ++i) {
            if (i + 1 < out.size() && out[i].end.empty()) out[i].end = usual;
            if (i + 1 == out.size() && (final_end.empty() || out[i].end.empty())) out[i].end = final_end;
        }
        return out;
    }

    const Lines& search_lines() const { return search_; }

private:
    std::size_t droppable(bool head) const {
        std::size_t keep = head ? keep_head_ : keep_tail_;
        const std::size_t all = head ? head_ : tail_;
        return all - std::min(keep, all);
    }

    bool stands_in_file(std::string_view text) const {
        return std::any_of(file_.begin(), file_.end(), [&](const FileLine& l) {
            return trim(l.text) == trim(text);
        });
    }

    /// Next to a line that has its place and is no stand-in.
    bool is_held(std::size_t i, const Placement& at) const {
        const auto holds = [&](const LineChange& op) {
            return at.lines[op.before] && !(elided_[op.before] && at.lines[op.before]->count != 1);
        };
        std::size_t b = i, a = i;
        while (b > 0 && ops_[b - 1].kind == LineChange::Kind::added) --b;
        while (a + 1 < ops_.size() && ops_[a + 1].kind == LineChange::Kind::added) ++a;
        return (b > 0 && holds(ops_[b - 1])) || (a + 1 < ops_.size() && holds(ops_[a + 1]));
    }

    std::size_t core_place(const Placement& at) const {
        for (std::size_t i = head_; i < at.lines.size(); ++i)
            if (at.lines[i]) return at.lines[i]->first;
        for (std::size_t i = head_; i-- > 0;)
            if (at.lines[i]) return at.lines[i]->first + at.lines[i]->count;
        return 0;
    }

    /// Lines [first, last) of the search, each likeness in turn.
    Found search(bool elide, std::size_t first, std::size_t last) const {
        if (first >= last) return {};
        for (const Likeness how : {Likeness::exact, Likeness::trailing_blanks, Likeness::indentation}) {
            Found found = elide ? search_parts(how, first, last) : search_whole(how, first, last);
            if (found.one || !found.places.empty()) return found;
        }
        return {};
    }

    bool matches_at(std::size_t at, std::size_t first, std::size_t last, Likeness how) const {
        if (at + (last - first) > file_.size()) return false;
        for (std::size_t i = first; i < last; ++i)
            if (!alike(file_[at + i - first].text, search_[i], how)) return false;
        return true;
    }

    Found search_whole(Likeness how, std::size_t first, std::size_t last) const {
        Found found;
        bool content = false;
        for (std::size_t i = first; i < last; ++i) content = content || !trim(search_[i]).empty();
        if (!content) return found;
        for (std::size_t at = 0; at + (last - first) <= file_.size(); ++at)
            if (matches_at(at, first, last, how)) found.places.push_back(at);
        if (found.places.size() == 1) {
            found.one = Placement{std::vector<std::optional<Placement::Span>>(search_.size()), how};
            for (std::size_t i = first; i < last; ++i)
                found.one->lines[i] = Placement::Span{found.places[0] + i - first, 1};
        } else {
            // What counts is where the change would be.
            for (auto& p : found.places) p += head_ > first ? head_ - first : 0;
        }
        return found;
    }

    struct Part {
        std::size_t first = 0, last = 0;  ///< in the search
        std::vector<std::size_t> places;
    };

    /// The parts between the lines for left-out code, each at its place, in order. Exactly one way to place
    /// them.
    Found search_parts(Likeness how, std::size_t first, std::size_t last) const {
        std::vector<Part> parts;
        for (std::size_t i = first; i < last; ++i) {
            if (elided_[i]) continue;
            if (i == first || elided_[i - 1]) parts.push_back({i, i, {}});
            parts.back().last = i + 1;
        }
        Found found;
        if (parts.empty()) return found;
        for (Part& part : parts) {
            for (std::size_t at = 0; at < file_.size(); ++at)
                if (matches_at(at, part.first, part.last, how)) part.places.push_back(at);
            if (part.places.empty()) return found;
        }
        // Where the parts with changes are counts; one that is context alone only has to be somewhere on its
        // side.
        std::size_t from = 0, to = parts.size();
        while (from + 1 < to && parts[from].last < head_) ++from;
        while (to > from + 1 && parts[to - 1].first > search_.size() - tail_) --to;
        bool anchored = false;
        for (std::size_t i = parts[from].first; i < parts[to - 1].last; ++i)
            anchored = anchored || is_anchor(search_[i]);
        if (!anchored) return found;
        std::vector<std::vector<std::size_t>> ways;
        std::vector<std::size_t> way;
        place(parts, from, to, way, ways);
        std::erase_if(ways, [&](const auto& w) {
            if (from > 0 && !room_before(parts, from, w.front())) return true;
            return to < parts.size() &&
                   !room_after(parts, to, w.back() + parts[to - 1].last - parts[to - 1].first);
        });
        if (ways.size() != 1) {
            for (const auto& w : ways) found.places.push_back(w.front());
            if (!ways.empty() && found.places.size() < 2) found.places.push_back(found.places.front());
            return found;
        }
        found.one = Placement{std::vector<std::optional<Placement::Span>>(search_.size()), how};
        std::size_t end = 0;
        for (std::size_t p = from; p < to; ++p) {
            const std::size_t at = ways[0][p - from];
            // The line before the part stands for what is between it and the part before.
            if (p > from)
                for (std::size_t i = parts[p - 1].last; i < parts[p].first; ++i)
                    found.one->lines[i] =
                        i == parts[p - 1].last ? Placement::Span{end, at - end} : Placement::Span{at, 0};
            for (std::size_t i = parts[p].first; i < parts[p].last; ++i)
                found.one->lines[i] = Placement::Span{at + i - parts[p].first, 1};
            end = at + parts[p].last - parts[p].first;
        }
        return found;
    }

    static void place(
        const std::vector<Part>& parts,
        std::size_t p,
        std::size_t to,
        std::vector<std::size_t>& way,
        std::vector<std::vector<std::size_t>>& ret_ways
    ) {
        if (ret_ways.size() > 8) return;
        if (p == to) {
            ret_ways.push_back(way);
            return;
        }
        const std::size_t before = way.empty() ? 0 : way.back() + parts[p - 1].last - parts[p - 1].first;
        for (const std::size_t at : parts[p].places) {
            if (at < before) continue;
            way.push_back(at);
            place(parts, p + 1, to, way, ret_ways);
            way.pop_back();
            if (ret_ways.size() > 8) return;
        }
    }

    static bool room_before(const std::vector<Part>& parts, std::size_t from, std::size_t at) {
        std::size_t end = at;
        for (std::size_t p = from; p-- > 0;) {
            const std::size_t size = parts[p].last - parts[p].first;
            const auto it =
                std::find_if(parts[p].places.rbegin(), parts[p].places.rend(), [&](std::size_t q) {
                    return q + size <= end;
                });
            if (it == parts[p].places.rend()) return false;
            end = *it;
        }
        return true;
    }
    static bool room_after(const std::vector<Part>& parts, std::size_t to, std::size_t at) {
        for (std::size_t p = to; p < parts.size(); ++p) {
            const auto it = std::find_if(parts[p].places.begin(), parts[p].places.end(), [&](std::size_t q) {
                return q >= at;
            });
            if (it == parts[p].places.end()) return false;
            at = *it + parts[p].last - parts[p].first;
        }
        return true;
    }

    std::string usual_end() const {
        std::size_t crlf = 0, lf = 0;
        for (const FileLine& l : file_) crlf += l.end == "\r\n", lf += l.end == "\n";
        return crlf > lf ? "\r\n" : "\n";
    }

    /// How a new line is indented when the search only fits without looking at indentation.
    class Indents {
    public:
        Indents(const OneEdit& edit, const Placement& at, const std::string& path) : edit_(edit), at_(at) {
            for (const char* end :
                 {".py", ".pyi", ".yaml", ".yml", ".nim", ".coffee", ".haml", ".pug", ".sass"})
                strict_ = strict_ || path.ends_with(end);
            if (at.how != Likeness::indentation) return;
            for (const LineChange& op : edit.ops_) {
                if (op.kind == LineChange::Kind::added || !at.lines[op.before] || edit.elided_[op.before])
                    continue;
                const auto line = edit.search_[op.before];
                if (trim(line).empty()) continue;
                auto& pairs = op.kind == LineChange::Kind::removed ? removed_ : kept_;
                pairs.emplace_back(
                    indentation(line), indentation(edit.file_[at.lines[op.before]->first].text)
                );
            }
        }

        /// Of ops_[i], which comes before line `next` of the file. nullopt: it cannot be told and matters.
        std::optional<std::string> of(std::size_t i, std::size_t next) const {
            const auto text = edit_.replace_[edit_.ops_[i].after];
            if (at_.how != Likeness::indentation || trim(text).empty()) return std::string{text};
            const auto own = indentation(text);
            const auto with = [&](std::string_view indent) {
                return std::string{indent}.append(text.substr(own.size()));
            };
            // What it replaces tells it best: the line removed in its place, when that had the same
            // indentation as it.
            std::size_t run = i;
            while (run > 0 && edit_.ops_[run - 1].kind != LineChange::Kind::same) --run;
            std::vector<Pair> here;
            for (std::size_t j = run;
                 j < edit_.ops_.size() && edit_.ops_[j].kind == LineChange::Kind::removed;
                 ++j) {
                const auto& op = edit_.ops_[j];
                if (at_.lines[op.before] && !trim(edit_.search_[op.before]).empty())
                    here.emplace_back(
                        indentation(edit_.search_[op.before]),
                        indentation(edit_.file_[at_.lines[op.before]->first].text)
                    );
            }
            if (auto indent = agreed(here, own)) return with(*indent);
            if (auto indent = agreed(removed_, own)) return with(*indent);
            if (!here.empty() && !strict_) {
                // As many were removed as added: line by line.
                std::size_t nth = 0;
                for (std::size_t j = run; j < i; ++j) nth += edit_.ops_[j].kind == LineChange::Kind::added;
                return with(here[std::min(nth, here.size() - 1)].second);
            }
            const bool context_lost =
                !own.empty() && !kept_.empty() &&
                std::all_of(kept_.begin(), kept_.end(), [](const Pair& p) { return p.first.empty(); });
            if (context_lost && !strict_ && near(next, own)) return std::string{text};
            if (context_lost && strict_) return std::nullopt;
            if (auto indent = agreed(kept_, own)) return with(*indent);
            if (strict_) return std::nullopt;
            // Deeper than the line before when that opens a block, else as the line that follows or precedes.
            const auto line = [&](std::size_t l) {
                return l < edit_.file_.size() ? std::string_view{edit_.file_[l].text} : std::string_view{};
            };
            std::size_t before = next;
            while (before > 0 && trim(line(before - 1)).empty()) --before;
            const auto previous = before > 0 ? line(before - 1) : std::string_view{};
            if (trim_right(previous).ends_with('{')) return with(std::string{indentation(previous)} + "    ");
            return with(indentation(previous));
        }

    private:
        using Pair =
            std::pair<std::string_view, std::string_view>;  ///< as the edit has it, as the file has it

        static std::optional<std::string> agreed(const std::vector<Pair>& pairs, std::string_view own) {
            if (pairs.empty()) return std::nullopt;
            std::set<std::string_view> as;
            for (const auto& [edit, file] : pairs)
                if (edit == own) as.insert(file);
            if (as.size() == 1) return std::string{*as.begin()};
            if (as.size() > 1) return std::nullopt;
            // All moved by the same blanks: so is this one.
            std::set<std::string> more, less;
            for (const auto& [edit, file] : pairs) {
                if (file.size() >= edit.size() && file.ends_with(edit))
                    more.insert(std::string{file.substr(0, file.size() - edit.size())});
                else if (edit.ends_with(file))
                    less.insert(std::string{edit.substr(0, edit.size() - file.size())});
                else
                    return std::nullopt;
            }
            if (more.size() == 1 && less.empty()) return *more.begin() + std::string{own};
            if (less.size() == 1 && more.empty() && own.starts_with(*less.begin()))
                return std::string{own.substr(less.begin()->size())};
            return std::nullopt;
        }

        bool near(std::size_t next, std::string_view own) const {
            for (std::size_t l = next > 3 ? next - 3 : 0; l < next + 3 && l < edit_.file_.size(); ++l)
                if (!trim(edit_.file_[l].text).empty() && indentation(edit_.file_[l].text) == own)
                    return true;
            return false;
        }

        const OneEdit& edit_;
        const Placement& at_;
        std::vector<Pair> removed_, kept_;
        bool strict_ = false;
    };

    const Edit& edit_;
    const std::vector<FileLine>& file_;
    Lines search_, replace_;
    std::vector<LineChange> ops_;
    std::vector<bool> elided_;
    std::size_t head_ = 0, tail_ = 0, keep_head_ = 0, keep_tail_ = 0;
};

std::vector<FileLine> split(const std::string& content) {
    std::vector<FileLine> out;
    std::size_t i = 0;
    while (i < content.size()) {
        const auto end = content.find('\n', i);
        if (end == std::string::npos) {
            out.push_back({content.substr(i), "", 0});
            break;
        }
        const bool crlf = end > i && content[end - 1] == '\r';
        out.push_back({content.substr(i, end - i - (crlf ? 1 : 0)), crlf ? "\r\n" : "\n", 0});
        i = end + 1;
    }
    return out;
}

std::string join(const std::vector<FileLine>& lines) {
    std::string out;
    for (const FileLine& l : lines) (out += l.text) += l.end;
    return out;
}

bool leaves_tree(std::string_view path) {
    if (path.empty() || path.size() > 4096 || path.front() == '/' ||
        path.find('\\') != std::string_view::npos || path.find('\0') != std::string_view::npos)
        return true;
    if (path.size() > 1 && path[1] == ':') return true;
    while (true) {
        const auto slash = path.find('/');
        const auto part = path.substr(0, slash);
        if (part.empty() || part == "." || part == "..") return true;
        if (slash == std::string_view::npos) return false;
        path.remove_prefix(slash + 1);
    }
}

/// The part of the file that is most like the search, with numbers for the reader.
std::string nearest(const Lines& search, const std::vector<FileLine>& file) {
    if (file.empty()) return "the file is empty";
    std::set<std::string_view> wanted;
    for (const auto line : search)
        if (is_anchor(line)) wanted.insert(trim(line));
    const auto words = [](std::string_view line) {
        std::set<std::string_view> out;
        for (const Token& t : tokens_of(line, false))
            if (t.kind != Token::Kind::mark) out.insert(t.text);
        return out;
    };
    std::set<std::string_view> all;
    for (const auto line : search) all.merge(words(line));
    std::vector<double> worth(file.size());
    for (std::size_t i = 0; i < file.size(); ++i) {
        if (wanted.contains(trim(file[i].text)))
            worth[i] = 10;
        else
            for (const auto w : words(file[i].text)) worth[i] += all.contains(w) ? 1 : 0;
    }
    const std::size_t size =
        std::clamp<std::size_t>(search.size(), 1, std::min<std::size_t>(file.size(), 12));
    double best = -1, now = 0;
    std::size_t place = 0;
    for (std::size_t i = 0; i < file.size(); ++i) {
        now += worth[i];
        if (i >= size) now -= worth[i - size];
        if (i + 1 >= size && now > best) best = now, place = i + 1 - size;
    }
    std::string out;
    for (std::size_t i = place > 2 ? place - 2 : 0; i < std::min(file.size(), place + size + 2); ++i)
        out += fmt::format("\n{:>5} | {}", i + 1, file[i].text.substr(0, 300));
    return out;
}

}  // namespace

result<std::vector<Edit>> parse_edits(std::string_view text, const std::string& default_file) {
    if (text.size() > max_text_bytes)
        return fail(
            errc::invalid_input, fmt::format("the text is longer than {} MiB", max_text_bytes >> 20U)
        );
    return Parser{text, default_file}.parse();
}

result<NewFiles> apply_edits(
    const std::vector<Edit>& edits, const std::function<result<std::string>(const std::string& path)>& read
) {
    std::map<std::string, std::vector<FileLine>> files;
    std::map<std::string, std::string> before;
    for (const Edit& edit : edits) {
        if (leaves_tree(edit.file))
            return fail(
                errc::invalid_input,
                fmt::format("edit {}: '{}' is no path within the repository", edit.ordinal, edit.file)
            );
        if (edit.search == edit.replace)
            return fail(
                errc::invalid_input, fmt::format("edit {} of {} changes nothing", edit.ordinal, edit.file)
            );
        auto it = files.find(edit.file);
        if (it == files.end()) {
            auto content = read(edit.file);
            if (!content && content.error().code != errc::not_found) return content.error();
            if (!content) {
                if (!trim(edit.search).empty())
                    return fail(
                        errc::conflict, fmt::format("edit {}: there is no file {}", edit.ordinal, edit.file)
                    );
                std::string text = edit.replace;
                if (!text.empty() && text.back() != '\n') text += '\n';
                auto lines = split(text);
                for (FileLine& l : lines) l.written = edit.ordinal;
                files.emplace(edit.file, std::move(lines));
                continue;
            }
            if (content->find('\0') != std::string::npos)
                return fail(
                    errc::invalid_input,
                    fmt::format("edit {}: {} is not a text file", edit.ordinal, edit.file)
                );
            before.emplace(edit.file, *content);
            it = files.emplace(edit.file, split(*content)).first;
        }
        auto& file = it->second;
        if (trim(edit.search).empty()) {
            if (!file.empty())
                return fail(
                    errc::conflict,
                    fmt::format(
                        "edit {}: {} is there already, and the edit has no line to find its place by",
                        edit.ordinal,
                        edit.file
                    )
                );
            file = split(edit.replace);
            continue;
        }
        const OneEdit one{edit, file};
        const Found found = one.find();
        if (!found.one) {
            if (found.places.empty())
                return fail(
                    errc::conflict,
                    fmt::format(
                        "edit {} of {}: its lines are nowhere in the file; the nearest are:{}",
                        edit.ordinal,
                        edit.file,
                        nearest(one.search_lines(), file)
                    )
                );
            std::string where;
            for (std::size_t i = 0; i < std::min<std::size_t>(found.places.size(), 5); ++i)
                where += fmt::format("{}{}", i > 0 ? ", " : "", found.places[i] + 1);
            return fail(
                errc::conflict,
                fmt::format(
                    "edit {} of {}: its lines are in the file more than once (at lines {}); give more lines "
                    "around them:{}",
                    edit.ordinal,
                    edit.file,
                    where,
                    nearest(one.search_lines(), file)
                )
            );
        }
        auto next = one.apply(*found.one, edit.file);
        if (!next) return next.error();
        file = std::move(*next);
    }
    NewFiles out;
    for (const auto& [path, lines] : files) {
        std::string content = join(lines);
        const auto old = before.find(path);
        if (old != before.end() && old->second == content)
            return fail(errc::invalid_input, fmt::format("the edits of {} change nothing", path));
        out.emplace(path, std::move(content));
    }
    return out;
}

}  // namespace heal::vcs
