// libFuzzer: header cut, scanner, JSON escapes and each stack trace parser. Checks what must hold for any
// bytes; a crash, a hang or a broken promise ends the run. Build with preset fuzz; nightly:
// -max_total_time=600, in tests: 20 s.
#include "fingerprint/bitmaps.hpp"
#include "fingerprint/fingerprint.hpp"
#include "fingerprint/neighbours.hpp"
#include "fingerprint/reader.hpp"
#include "fingerprint/traces.hpp"

#include <cstdlib>
#include <string>
#include <string_view>

namespace fp = heal::fingerprint;

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

bool inside(std::string_view part, std::string_view whole) {
    return part.empty() ||
           (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    static fp::Scanner scanner{{}, 5, 6};

    const fp::Line line = fp::cut_header(text);
    for (const auto part :
         {line.message, line.timestamp, line.host, line.process, line.thread, line.component})
        must(inside(part, text));

    // One pass, two sinks: equal patterns have equal keys, and the id is the one of compute.
    const std::string pattern = fp::pattern_of(text);
    must(pattern.size() <= 3 * text.size() + 3);
    char hex[16];
    fp::id_hex(scanner.id(text), hex);
    must(std::string_view(hex, 16) == fp::compute({}, text, {}).id);
    // Half of the text, its end cut anywhere, must not touch bytes behind it (ASan watches).
    const std::string half = text.substr(0, size / 2);
    must(fp::pattern_of(half) == fp::pattern_of(std::string_view{text}.substr(0, size / 2)));

    if (size <= 8192) {
        fp::Bitmaps a, b;
        fp::fill_bitmaps(text, a, fp::Simd::scalar);
        for (int s = 1; s <= static_cast<int>(fp::best_simd()); ++s) {
            fp::fill_bitmaps(text, b, static_cast<fp::Simd>(s));
            for (std::size_t w = 0; w * 64 < size; ++w)
                must(a.space[w] == b.space[w] && a.other[w] == b.other[w]);
        }
    }

    // A remembered shape never changes an id: the same line with other digits, met after it.
    static fp::Scanner plain{{}, 5, 6};
    plain.remember_shapes(false);
    fp::LineReader reader;
    const std::string message{reader.read(text).message};
    must(scanner.id_of_line(text) == plain.id_of_line(text));
    must(plain.id_of_line(text) == plain.id(message));
    std::string other = text;
    for (std::size_t i = 0; i < other.size(); ++i) {
        if (other[i] >= '0' && other[i] <= '9')
            other[i] = static_cast<char>('0' + (static_cast<unsigned char>(other[i]) + i + size) % 10);
    }
    must(scanner.id_of_line(other) == plain.id_of_line(other));
    must(scanner.id(other) == plain.id(other));

    const auto near = fp::nearest(pattern, {{"a", message}, {"b", other}});
    for (const auto& n : near) must(n.likeness >= 0.5 && n.likeness <= 1);

    std::string out;
    fp::unescape_json(text, out);
    must(out.size() <= 3 * size + 3);
    fp::strip_ansi(text, out);
    must(out.size() <= size);

    // A first line of each language leads into its parser.
    static constexpr std::string_view openings[] = {
        "",
        "Traceback (most recent call last):\n",
        "java.lang.E: x\n\tat a.B.c(D.java:1)\n",
        "Error: x\n    at f (/a.js:1:2)\n",
        "goroutine 1 [running]:\n",
        "thread 'main' panicked at a.rs:1:2:\n",
        "   at A.B.C() in /a.cs:line 1\n",
        "a.rb:1:in `f': m (E)\n",
        "#0 /a.php(1): f()\n",
        "==1==ERROR: AddressSanitizer: heap-use-after-free on\n",
        "Call Trace:\n"};
    const std::string trace = std::string{openings[size == 0 ? 0 : data[0] % std::size(openings)]} + text;
    const fp::Signature s = fp::signature_of(fp::parse_trace(trace));
    must(s.app5.empty() == s.frames.empty());
    must(!(s.frames.empty() && !s.exact.empty()));
    fp::matches_glob(std::string_view{text}.substr(0, size / 2), std::string_view{text}.substr(size / 2));
    return 0;
}
