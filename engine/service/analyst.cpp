#include "service/analyst.hpp"

#include "ai/meter.hpp"
#include "ai/model.hpp"
#include "ai/prompt.hpp"
#include "base/files.hpp"
#include "base/id.hpp"
#include "base/log.hpp"
#include "base/offload.hpp"
#include "base/tasks.hpp"
#include "service/code_reader.hpp"
#include "service/healer.hpp"
#include "store/analysis_store.hpp"
#include "store/bug_store.hpp"
#include "store/healing_store.hpp"
#include "store/queries.hpp"

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <optional>
#include <vector>

namespace heal {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

/// Analyses at a time; further ones wait. Most of one is waiting for a model.
constexpr unsigned most_running = 4;
/// Bugs that wait to be analysed at once.
constexpr std::size_t most_urgent = 64;
constexpr unsigned most_repairs = 2, most_suggestions = 3;
constexpr std::size_t most_edits_bytes = 64U << 10U;
/// What rules found out while no model answered is looked at again by one after so long.
constexpr Duration rules_hold = 6h;
constexpr std::int64_t bugs_per_look = 20;

/// A timer that never expires: cancelling it wakes who waits.
asio::steady_timer never(asio::io_context& io) {
    return asio::steady_timer{io, asio::steady_timer::time_point::max()};
}

/// One analysis under way, with all who wait for it.
struct Flight {
    explicit Flight(asio::io_context& io) : wake(never(io)) {}
    std::optional<result<json::object>> outcome;
    asio::steady_timer wake;
};

/// What one analysis is made of; shared by the questions that it asks.
struct Work {
    std::string bug, code, actor;
    bool fresh = false;
    std::shared_ptr<const Settings> settings;
    std::shared_ptr<const ai::Redactor> redactor;
    ai::QuestionInput input;
    std::string fingerprint, revision, digest;  ///< digest: of the code that is shown
    std::int64_t tokens = 0, cost_micros = 0;
    unsigned left = 0;  ///< questions under way
};

/// What one provider said.
struct Opinion {
    bool ok = false, cached = false;
    std::string provider, model, error;
    ai::Analysis analysis;
    std::vector<std::string> edits;  ///< by suggestion; "": none
    json::object redactions;
    json::array shown;
};

ai::ProviderPlace place_of(const ProviderSettings& p) {
    ai::ProviderPlace place;
    place.name = p.name;
    place.dialect = p.dialect;
    place.base_url = p.base_url;
    place.model = p.model;
    place.key = p.key;
    place.auth = p.auth;
    place.api_version = p.api_version;
    place.headers = p.headers;
    place.timeout = p.timeout;
    place.max_output_tokens = p.max_output_tokens;
    place.context_tokens = p.context_tokens;
    place.record = p.record;
    place.replay = p.replay;
    return place;
}

std::int64_t micros(double amount) { return static_cast<std::int64_t>(amount * 1e6); }

ai::Budget budget_of(const AiSettings& s, const ProviderSettings& p) {
    ai::Budget b;
    b.tokens_per_day = s.tokens_per_day;
    b.tokens_per_bug = s.tokens_per_bug;
    b.provider_tokens_per_day = p.tokens_per_day;
    b.cost_micros_per_day = micros(s.cost_per_day);
    b.cost_micros_per_bug = micros(s.cost_per_bug);
    return b;
}

ai::BreakerRule breaker_rule(const AiSettings& s, const ProviderSettings& p) {
    // A question that tries whether a provider answers again may take all of its tries and waits.
    return {s.breaker_failures, s.breaker_pause, Duration{p.timeout} * ai::most_tries + ai::longest_wait * 2};
}

std::int64_t cost_of(
    const AiSettings& s,
    const std::string& model,
    std::int64_t input,
    std::int64_t cached,
    std::int64_t output
) {
    std::vector<ai::Price> prices;
    for (const auto& p : s.prices) prices.push_back({p.model, p.input, p.cached, p.output});
    return ai::cost_micros(prices, model, input, cached, output);
}

result<ai::Breaker> load_breaker(Database& db, const AiSettings& s, const ProviderSettings& p, Time now) {
    // The longest rest that a provider may ask for is 31 days (ai/model.cpp).
    auto calls = sql::ai_calls_of(db, p.name, now - 31 * 24h);
    if (!calls) return calls.error();
    std::vector<ai::CallFact> facts;
    for (auto& c : *calls) facts.push_back({c.at, std::move(c.outcome), std::move(c.error)});
    return ai::breaker_of(breaker_rule(s, p), facts, now);
}

json::object report_of(const ai::Redaction& redaction) {
    json::object out;
    for (const auto& [kind, n] : redaction.report()) out[kind] = n;
    return out;
}

/// What of a base url may be shown.
std::string shown_url(const std::string& url) {
    std::string out = url.substr(0, url.find_first_of("?#"));
    const auto start = out.find("://");
    const auto at = start == std::string::npos ? std::string::npos : out.rfind('@');
    if (at != std::string::npos && at > start) out.erase(start + 3, at - start - 2);
    return out;
}

std::string digest_of(const std::vector<ai::CodeExcerpt>& code) {
    std::string all;
    for (const auto& c : code) all += c.file + '\n' + c.text + '\0';
    return all.empty() ? std::string{} : sha256_hex(all).substr(0, 16);
}

class AnalystImpl final : public Analyst {
public:
    AnalystImpl(Shared& shared, std::unique_ptr<CodeReader> code, net::HttpClient& http)
        : s_(shared), code_(std::move(code)), http_(http), free_(never(shared.io)), pool_(most_running * 2) {}
    ~AnalystImpl() override {
        cancel_ = true;
        pool_.join();
    }

    asio::awaitable<result<json::object>> analyze(AnalysisRequest request) override {
        if (cancel_) co_return fail(errc::cancelled, "heald is stopping");
        const std::string wanted = request.bug;
        std::function<result<json::object>(Database&)> show = [wanted](Database& db) {
            return sql::show_bug(db, wanted);
        };
        auto bug = co_await s_.store.read<json::object>(std::move(show));
        if (!bug) co_return bug.error();
        if (auto may = may_be_analysed(*bug); !may) co_return may.error();
        if (!request.provider.empty() && !find_provider(*s_.settings, request.provider)) {
            co_return fail(
                errc::not_found,
                fmt::format(
                    "there is no provider '{}' in the configuration",
                    to_valid_utf8(request.provider.substr(0, 100))
                )
            );
        }
        request.bug = string_at(*bug, "id");
        std::shared_ptr<Flight> flight;
        if (const auto it = flights_.find(request.bug); it != flights_.end())
            flight = it->second;
        else {
            flight = std::make_shared<Flight>(s_.io);
            flights_[request.bug] = flight;
            // Of its own, so that it goes on when who asked goes away.
            spawn(s_.io, fly(flight, request), "an analysis");
        }
        while (!flight->outcome) co_await due(flight->wake);
        co_return *flight->outcome;
    }

    asio::awaitable<result<std::string>> mend(std::string suggestion, std::string complaint) override {
        auto found = std::make_shared<json::object>();
        std::function<result<sql::AnalysisInput>(Database&)> load = [found, suggestion, this](Database& db
                                                                    ) -> result<sql::AnalysisInput> {
            auto row = sql::show_suggestion(db, suggestion);
            if (!row) return row.error();
            *found = std::move(*row);
            return sql::load_analysis_input(db, std::string{string_at(*found, "bug_id")}, 0, s_.clock.wall());
        };
        auto input = co_await s_.store.read<sql::AnalysisInput>(std::move(load));
        if (!input) co_return input.error();
        const std::string name{string_at(*found, "provider")};
        auto work = work_of(*input);
        const auto* provider = find_provider(*work->settings, name);
        if (string_at(*found, "source") != "model" || !provider)
            co_return fail(
                errc::denied,
                "the suggestion came from no model that is configured; nobody can be asked to mend it"
            );
        const std::string revision{string_at(*found, "revision")};
        co_await read_code(work, revision, *provider);
        ai::Suggestion s;
        s.title = string_at(*found, "fix_title");
        s.description = string_at(*found, "fix_description");
        s.approach = string_at(*found, "fix_approach");
        for (const auto& f : array_at(*found, "files_affected")) {
            if (f.is_string()) s.files.emplace_back(view(f.get_string()));
        }
        const std::string before{string_at(*found, "edits")};
        ai::Redaction redaction{*work->redactor};
        const ai::Fence fence;
        result<ai::Question> question = fail(errc::internal, "not made");
        const auto make = [&] {
            question = ai::edits_question(
                work->input, s, provider->context_tokens, fence, redaction, before, complaint
            );
        };
        co_await offload(pool_, make);
        if (!question) co_return fail(errc::denied, question.error().text);
        const Judge judge = [](const ai::ModelAnswer& a) {
            return ai::has_edits(a.text) ? "answered" : "invalid";
        };
        const std::string purpose = "mend";
        auto answer = co_await ask_once(work, *provider, purpose, *question, redaction, judge);
        if (!answer) {
            const auto code = answer.error().code;
            co_return fail(
                code == errc::denied || code == errc::cancelled ? code : errc::unavailable,
                answer.error().text
            );
        }
        if (!ai::has_edits(answer->text))
            co_return fail(errc::unavailable, name + ": the answer has no edits");
        const std::string edits = answer->text.substr(0, most_edits_bytes);
        Store::Job store = [suggestion, edits](Database& db) {
            return sql::set_suggestion_edits(db, suggestion, edits, edits);
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(store)));
        co_return edits;
    }

    asio::awaitable<result<std::int64_t>> look_for_work() override {
        const bool models = !s_.settings->ai.providers.empty();
        const Time now = s_.clock.wall(), rules_before = models ? now - rules_hold : Time{0};
        const Time unused = now - Duration{s_.settings->ai.cache_for};
        Store::Job forget = [unused](Database& db) -> result<void> {
            auto n = sql::forget_ai_answers(db, unused);
            if (!n) return n.error();
            return {};
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(forget)));
        std::function<result<std::vector<std::string>>(Database&)> find = [rules_before](Database& db) {
            return sql::bugs_without_analysis(db, rules_before, bugs_per_look);
        };
        auto bugs = co_await s_.store.read<std::vector<std::string>>(std::move(find));
        if (!bugs) co_return bugs.error();
        std::int64_t count = 0;
        for (const auto& bug : *bugs) {
            if (cancel_) co_return fail(errc::cancelled, "heald is stopping");
            AnalysisRequest request;
            request.bug = bug;
            request.actor = "heald";
            auto outcome = co_await analyze(std::move(request));
            if (outcome)
                ++count;
            else if (outcome.error().code != errc::conflict)
                log::warn("bug {} was not analysed: {}", bug, outcome.error().text);
        }
        co_return count;
    }

    void opened(const std::string& bug, Severity severity) override {
        if (cancel_ || (s_.settings->ai.providers.empty() && s_.settings->repositories.empty())) return;
        if (severity != Severity::p0_critical && severity != Severity::p1_major) return;
        if (urgent_.size() >= most_urgent) {
            s_.metrics.add("heald_analysis_urgent_total", {{"outcome", "refused"}});
            return;
        }
        s_.metrics.add("heald_analysis_urgent_total", {{"outcome", "queued"}});
        urgent_.push_back(bug);
        if (draining_) return;
        draining_ = true;
        spawn(s_.io, drain(), [this](const std::exception_ptr& error) {
            draining_ = false;
            if (error) log::error("the queue of urgent analyses ended by a defect: {}", text_of(error));
        });
    }

    void before_models(std::function<asio::awaitable<result<bool>>(std::string bug)> ask) override {
        before_ = std::move(ask);
    }

    void on_suggested(std::function<asio::awaitable<result<void>>(std::string bug)> told) override {
        suggested_ = std::move(told);
    }

    asio::awaitable<result<json::object>> figures() override {
        const auto settings = s_.settings;
        const Time now = s_.clock.wall();
        std::function<result<json::object>(Database&)> job = [settings,
                                                              now](Database& db) -> result<json::object> {
            const auto& ai = settings->ai;
            const std::string day = ai::day_of(now);
            auto spent = sql::ai_spent_on(db, day);
            if (!spent) return spent.error();
            auto by_model = sql::ai_figures(db, day);
            if (!by_model) return by_model.error();
            json::array providers;
            for (const auto& p : ai.providers) {
                auto breaker = load_breaker(db, ai, p, now);
                if (!breaker) return breaker.error();
                auto used = sql::ai_spent_by(db, day, p.name);
                if (!used) return used.error();
                providers.push_back(json::object{
                    {"name", p.name},
                    {"dialect", p.dialect},
                    {"model", p.model},
                    {"base_url", shown_url(p.base_url)},
                    {"has_key", !p.key.empty()},
                    {"context_tokens", p.context_tokens},
                    {"max_output_tokens", p.max_output_tokens},
                    {"tokens_today", used->tokens},
                    {"cost_today", static_cast<double>(used->cost_micros) / 1e6},
                    {"tokens_per_day", p.tokens_per_day},
                    {"breaker",
                     json::object{
                         {"open", breaker->open},
                         {"until",
                          breaker->until ? json::value(to_rfc3339(*breaker->until)) : json::value(nullptr)},
                         {"failures", breaker->failures},
                         {"reason", breaker->reason}}}});
            }
            return json::object{
                {"day", day},
                {"ask", ai.ask},
                {"tokens_today", spent->tokens},
                {"cost_today", static_cast<double>(spent->cost_micros) / 1e6},
                {"tokens_per_day", ai.tokens_per_day},
                {"tokens_per_bug", ai.tokens_per_bug},
                {"cost_per_day", ai.cost_per_day},
                {"cost_per_bug", ai.cost_per_bug},
                {"providers", std::move(providers)},
                {"questions", std::move(*by_model)}};
        };
        auto out = co_await s_.store.read<json::object>(std::move(job));
        if (!out) co_return out.error();
        (*out)["running"] = flights_.size();
        (*out)["urgent"] = urgent_.size();
        co_return std::move(*out);
    }

    asio::awaitable<void> stop() override {
        cancel_ = true;
        free_.cancel();
        // Models look at the flag ten times a second; what they were reserved for stays counted.
        for (int i = 0; (!flights_.empty() || draining_) && i < 500; ++i) co_await sleep_for(10ms);
    }

private:
    /// The outcome of an answer, in the words of ai_calls.
    using Judge = std::function<std::string(const ai::ModelAnswer&)>;

    static result<void> may_be_analysed(const json::object& bug) {
        BugStatus status = BugStatus::detected;
        parse_bug_status(string_at(bug, "status"), status);
        const auto code = string_at(bug, "bug_code");
        if (!string_at(bug, "merged_into").empty())
            return fail(
                errc::conflict, fmt::format("{} is merged into another, which is analysed instead", code)
            );
        if (!is_open(status))
            return fail(errc::conflict, fmt::format("{} is {}; reopen it first", code, to_string(status)));
        if (status == BugStatus::approved || status == BugStatus::applying || status == BugStatus::testing)
            return fail(
                errc::conflict, fmt::format("a fix of {} is under way; it is {}", code, to_string(status))
            );
        return {};
    }

    static const ProviderSettings* find_provider(const Settings& settings, const std::string& name) {
        const auto& all = settings.ai.providers;
        const auto it = std::find_if(all.begin(), all.end(), [&](const auto& p) { return p.name == name; });
        return it == all.end() ? nullptr : &*it;
    }

    /// Compiled once for each configuration.
    std::shared_ptr<const ai::Redactor> redactor_of(const std::shared_ptr<const Settings>& settings) {
        if (redactor_ && redactor_for_ == settings) return redactor_;
        const auto& ai = settings->ai;
        auto made = ai::Redactor::create({ai.redact, ai.keep, ai.redact_addresses});
        // The configuration was checked when it was read.
        redactor_ = std::make_shared<const ai::Redactor>(std::move(made).value());
        redactor_for_ = settings;
        return redactor_;
    }

    std::shared_ptr<Work> work_of(const sql::AnalysisInput& in) {
        auto work = std::make_shared<Work>();
        work->settings = s_.settings;
        work->redactor = redactor_of(work->settings);
        work->bug = string_at(in.bug, "id");
        work->code = string_at(in.bug, "bug_code");
        work->fingerprint = string_at(in.bug, "fingerprint");
        auto& q = work->input;
        q.error_type = string_at(in.bug, "error_type");
        q.message = string_at(in.bug, "message");
        q.service = string_at(in.bug, "service_name");
        q.environment = string_at(in.bug, "environment");
        q.severity = string_at(in.bug, "severity");
        q.stack_trace = string_at(in.bug, "stack_trace");
        q.pattern = in.pattern;
        q.level = in.level;
        q.occurrences = in.occurrences;
        q.last_hour = in.last_hour;
        q.last_day = in.last_day;
        for (const auto& l : in.logs) q.logs.push_back({l.message, l.stack_trace, l.context});
        for (const auto& b : in.similar)
            q.similar.push_back({b.title, b.root_cause, b.fix_title, b.fix_approach});
        // A bug opened by a line without a trace may have got one later.
        for (const auto& l : in.logs) {
            if (q.stack_trace.empty()) q.stack_trace = l.stack_trace;
        }
        return work;
    }

    asio::awaitable<void> drain() {
        while (!urgent_.empty() && !cancel_) {
            AnalysisRequest request;
            request.bug = urgent_.front();
            request.actor = "heald";
            urgent_.pop_front();
            auto outcome = co_await analyze(std::move(request));
            s_.metrics.add("heald_analysis_urgent_total", {{"outcome", outcome ? "done" : "failed"}});
            if (!outcome) log::warn("an urgent bug was not analysed: {}", outcome.error().text);
        }
        urgent_.clear();
    }

    /// Ends `flight` with its outcome, whatever happens.
    asio::awaitable<void> fly(std::shared_ptr<Flight> flight, AnalysisRequest request) {
        const std::string bug = request.bug;
        while (running_ >= most_running && !cancel_) co_await due(free_);
        ++running_;
        result<json::object> outcome = fail(errc::internal, "the analysis ended by a defect");
        try {
            if (cancel_)
                outcome = fail(errc::cancelled, "heald is stopping");
            else
                outcome = co_await perform(std::move(request));
        } catch (const std::exception& e) {
            log::error("an analysis ended by a defect: {}", e.what());
        }
        --running_;
        free_.cancel();
        flights_.erase(bug);
        flight->outcome = std::move(outcome);
        flight->wake.cancel();
    }

    asio::awaitable<result<json::object>> perform(AnalysisRequest request) {
        const auto begin = s_.clock.steady();
        const std::string bug = request.bug;
        const unsigned lines = s_.settings->ai.log_lines;
        const Time now = s_.clock.wall();
        std::function<result<sql::AnalysisInput>(Database&)> load = [bug, lines, now](Database& db) {
            return sql::load_analysis_input(db, bug, lines, now);
        };
        auto input = co_await s_.store.read<sql::AnalysisInput>(std::move(load));
        if (!input) co_return input.error();
        if (auto may = may_be_analysed(input->bug); !may) co_return may.error();
        if (before_ && !request.fresh && request.provider.empty()) {
            std::string id{string_at(input->bug, "id")};
            auto tried = co_await before_(std::move(id));
            if (!tried)
                log::warn("patterns could not be tried on bug {}: {}", bug, tried.error().text);
            else if (*tried)
                co_return json::object{
                    {"bug_id", string_at(input->bug, "id")},
                    {"bug_code", string_at(input->bug, "bug_code")},
                    {"source", "pattern"},
                    {"tokens", 0},
                    {"cost", 0.0},
                    {"suggestions", json::array{}},
                    {"duration_us", (s_.clock.steady() - begin).count()}};
        }
        auto work = work_of(*input);
        work->actor = request.actor.empty() ? "heald" : request.actor;
        work->fresh = request.fresh;
        std::vector<ProviderSettings> providers;
        for (const auto& p : work->settings->ai.providers) {
            if (request.provider.empty() || request.provider == p.name) providers.push_back(p);
        }
        auto opinions = std::make_shared<std::vector<Opinion>>();
        if (!providers.empty()) {
            const std::string release{string_at(input->bug, "last_release")};
            const auto widest =
                *std::max_element(providers.begin(), providers.end(), [](const auto& a, const auto& b) {
                    return a.context_tokens < b.context_tokens;
                });
            co_await read_code(work, release, widest);
            opinions->reserve(providers.size());  // questions under way point into it
            const unsigned wanted = request.provider.empty() ? work->settings->ai.ask : 1;
            co_await gather(work, providers, wanted, opinions);
        }
        if (cancel_) co_return fail(errc::cancelled, "heald is stopping");
        auto outcome = co_await conclude(work, *input, opinions);
        if (outcome) (*outcome)["duration_us"] = (s_.clock.steady() - begin).count();
        co_return outcome;
    }

    /// The code that the trace names; without it the question has none.
    asio::awaitable<void> read_code(
        std::shared_ptr<Work> work, std::string revision, ProviderSettings provider
    ) {
        const auto* repository = repository_of(*work->settings, work->input.service);
        if (!repository || repository->autonomy == FixAutonomy::off) co_return;
        result<CodeAt> code = fail(errc::internal, "not read");
        const auto most = static_cast<std::size_t>(provider.context_tokens) * 2;  // of three bytes per token
        const auto read = [&] {
            code = code_->read(*repository, revision, work->input.stack_trace, most, cancel_);
        };
        co_await offload(pool_, read);
        if (!code) {
            log::warn("the code of {} could not be read: {}", work->input.service, code.error().text);
            co_return;
        }
        work->revision = code->revision;
        work->input.revision = code->revision;
        work->input.code = std::move(code->excerpts);
        work->digest = digest_of(work->input.code);
    }

    /// Asks in order until `wanted` have answered or none is left; those of one round side by side.
    asio::awaitable<void> gather(
        std::shared_ptr<Work> work,
        std::vector<ProviderSettings> providers,
        unsigned wanted,
        std::shared_ptr<std::vector<Opinion>> opinions
    ) {
        std::size_t next = 0;
        asio::steady_timer all = never(s_.io);
        for (;;) {
            const auto good = static_cast<unsigned>(
                std::count_if(opinions->begin(), opinions->end(), [](const Opinion& o) { return o.ok; })
            );
            if (good >= wanted || next >= providers.size() || cancel_) co_return;
            for (unsigned i = good; i < wanted && next < providers.size(); ++i, ++next) {
                opinions->emplace_back();
                ++work->left;
                spawn(
                    s_.io,
                    converse(work, providers[next], opinions, opinions->size() - 1),
                    [work, &all](const std::exception_ptr& error) {
                        if (error) log::error("a question to a model ended by a defect: {}", text_of(error));
                        if (--work->left == 0) all.cancel();
                    }
                );
            }
            while (work->left > 0) co_await due(all);
        }
    }

    std::string answer_key(const Work& work, const ProviderSettings& p) const {
        return sha256_hex(fmt::format(
            "{}\n{}\n{}\n{}\n{}\n{}",
            ai::analysis_form,
            work.fingerprint,
            work.digest,
            p.name,
            p.dialect,
            p.model
        ));
    }

    /// One provider's whole opinion: the stored one, or its analysis and then the edits of its suggestions.
    asio::awaitable<void> converse(
        std::shared_ptr<Work> work,
        ProviderSettings provider,
        std::shared_ptr<std::vector<Opinion>> opinions,
        std::size_t index
    ) {
        auto& mine = (*opinions)[index];
        mine.provider = provider.name;
        mine.model = provider.model;
        const std::string key = answer_key(*work, provider);
        if (!work->fresh) {
            const bool stored = co_await use_stored(work, key, mine);
            if (stored) co_return;
        }
        ai::Redaction redaction{*work->redactor};
        const ai::Fence fence;
        result<ai::Question> question = fail(errc::internal, "not made");
        std::vector<std::string> faults;
        std::string last;
        bool cut = false;
        const Judge judge = [&](const ai::ModelAnswer& a) -> std::string {
            last = a.text;
            cut = a.finish == ai::Finish::length;
            if (a.finish == ai::Finish::refused) return "refused";
            faults = ai::check_analysis(a.text, mine.analysis);
            return faults.empty() ? "answered" : "invalid";
        };
        for (unsigned round = 0;; ++round) {
            const auto make = [&] {
                question = round == 0
                               ? ai::analysis_question(work->input, provider.context_tokens, fence, redaction)
                               : ai::repair_question(
                                     work->input, provider.context_tokens, fence, redaction, last, faults
                                 );
            };
            co_await offload(pool_, make);
            if (!question) {
                mine.error = question.error().text;
                log::error("no question to {} could be made: {}", provider.name, mine.error);
                co_return;
            }
            if (round == 0) mine.shown = question->shown;
            faults = {"it is no answer"};
            const std::string purpose = round == 0 ? "analysis" : "repair";
            auto answer = co_await ask_once(work, provider, purpose, *question, redaction, judge);
            mine.redactions = report_of(redaction);
            if (!answer) {
                mine.error = answer.error().text;
                co_return;
            }
            if (faults.empty()) break;
            if (answer->finish == ai::Finish::refused) {
                mine.error = provider.name + ": the model refused to answer";
                co_return;
            }
            if (cut) faults.emplace_back("it was cut at the limit of its length: be shorter");
            if (round == most_repairs) {
                mine.error =
                    fmt::format("{}: no valid answer in {} rounds: {}", provider.name, round + 1, faults[0]);
                co_return;
            }
        }
        const bool whole = co_await ask_for_edits(work, provider, mine, redaction);
        mine.redactions = report_of(redaction);
        mine.ok = true;
        // Half an answer, because a budget ended in its middle, is not good for the next time.
        if (whole) co_await keep(work, key, mine);
    }

    asio::awaitable<bool> use_stored(std::shared_ptr<Work> work, std::string key, Opinion& mine) {
        auto found = std::make_shared<std::optional<sql::AiAnswer>>();
        const Time now = s_.clock.wall(), from = now - Duration{work->settings->ai.cache_for};
        Store::Job look = [found, key, from, now](Database& db) -> result<void> {
            auto answer = sql::use_ai_answer(db, key, from, now);
            if (!answer) return answer.error();
            *found = std::move(*answer);
            return {};
        };
        auto outcome = co_await s_.store.write(std::move(look));
        if (!outcome || !*found) co_return false;
        auto parsed = parse_json((*found)->answer, "ai_answers.answer");
        if (!parsed || !parsed->is_object()) co_return false;
        const auto& o = parsed->get_object();
        auto analysis = ai::analysis_of(object_at(o, "analysis"));
        if (!analysis) co_return false;
        mine.analysis = std::move(*analysis);
        for (const auto& e : array_at(o, "edits"))
            mine.edits.emplace_back(e.is_string() ? view(e.get_string()) : std::string_view{});
        mine.edits.resize(mine.analysis.suggestions.size());
        mine.redactions = object_at(o, "redactions");
        mine.shown = array_at(o, "shown");
        mine.ok = mine.cached = true;
        s_.metrics.add("heald_llm_requests_total", {{"provider", mine.provider}, {"outcome", "cached"}});
        co_return true;
    }

    asio::awaitable<void> keep(std::shared_ptr<Work> work, std::string key, const Opinion& mine) {
        const json::object content{
            {"analysis", ai::to_json(mine.analysis)},
            {"edits", json::array(mine.edits.begin(), mine.edits.end())},
            {"redactions", mine.redactions},
            {"shown", mine.shown}};
        sql::AiAnswer answer{
            key, work->fingerprint, work->revision, mine.provider, mine.model, json::serialize(content)};
        Store::Job job = [answer, now = s_.clock.wall()](Database& db) {
            return sql::save_ai_answer(db, answer, now);
        };
        auto outcome = co_await s_.store.write(std::move(job));
        if (!outcome) log::warn("an answer was not kept: {}", outcome.error().text);
    }

    /// True when every question that should be asked was answered, with edits or without.
    asio::awaitable<bool> ask_for_edits(
        std::shared_ptr<Work> work, const ProviderSettings& provider, Opinion& mine, ai::Redaction& redaction
    ) {
        mine.edits.assign(mine.analysis.suggestions.size(), "");
        if (work->input.code.empty()) co_return true;
        const ai::Fence fence;
        const Judge judge = [](const ai::ModelAnswer& a) -> std::string {
            if (a.finish == ai::Finish::refused) return "refused";
            return ai::has_edits(a.text) && a.finish != ai::Finish::length ? "answered" : "invalid";
        };
        for (std::size_t i = 0; i < mine.analysis.suggestions.size(); ++i) {
            if (mine.analysis.suggestions[i].files.empty()) continue;
            result<ai::Question> question = fail(errc::internal, "not made");
            const auto make = [&] {
                question = ai::edits_question(
                    work->input, mine.analysis.suggestions[i], provider.context_tokens, fence, redaction
                );
            };
            co_await offload(pool_, make);
            if (!question) co_return false;
            const std::string purpose = "edits";
            auto answer = co_await ask_once(work, provider, purpose, *question, redaction, judge);
            if (!answer) {
                mine.error = answer.error().text;
                co_return false;
            }
            if (answer->finish != ai::Finish::length && ai::has_edits(answer->text) &&
                answer->text.size() <= most_edits_bytes)
                mine.edits[i] = answer->text;
        }
        co_return true;
    }

    /// Reserves, asks, settles. errc::denied the budget; errc::unavailable the provider rests; else as
    /// ai::ModelReply.
    asio::awaitable<result<ai::ModelAnswer>> ask_once(
        std::shared_ptr<Work> work,
        const ProviderSettings& provider,
        std::string purpose,
        const ai::Question& question,
        const ai::Redaction& redaction,
        const Judge& judge
    ) {
        const auto& settings = work->settings->ai;
        sql::AiCall call;
        call.id = new_id(s_.clock);
        call.at = s_.clock.wall();
        call.day = ai::day_of(call.at);
        call.purpose = purpose;
        call.provider = provider.name;
        call.model = provider.model;
        call.bug = work->bug;
        call.input_tokens = question.tokens;
        call.output_tokens = provider.max_output_tokens;
        call.cost_micros = cost_of(settings, provider.model, call.input_tokens, 0, call.output_tokens);
        call.redactions = json::serialize(report_of(redaction));
        Store::Job reserve = [call, work, provider](Database& db) -> result<void> {
            const auto& s = work->settings->ai;
            auto breaker = load_breaker(db, s, provider, call.at);
            if (!breaker) return breaker.error();
            if (breaker->open) {
                return fail(
                    errc::unavailable,
                    fmt::format(
                        "{} rests{}: {}",
                        provider.name,
                        breaker->until ? " until " + to_rfc3339(*breaker->until) : "",
                        breaker->reason
                    )
                );
            }
            auto day = sql::ai_spent_on(db, call.day), bug = sql::ai_spent_for(db, call.bug),
                 by = sql::ai_spent_by(db, call.day, provider.name);
            if (!day) return day.error();
            if (!bug) return bug.error();
            if (!by) return by.error();
            const ai::Spent spent{
                {day->tokens, day->cost_micros},
                {bug->tokens, bug->cost_micros},
                {by->tokens, by->cost_micros}};
            HEAL_TRY(ai::check_budget(
                budget_of(s, provider), spent, {call.input_tokens + call.output_tokens, call.cost_micros}
            ));
            return sql::insert_ai_call(db, call);
        };
        if (auto reserved = co_await s_.store.write(std::move(reserve)); !reserved) {
            const auto& e = reserved.error();
            s_.metrics.add(
                "heald_llm_requests_total",
                {{"provider", provider.name}, {"outcome", e.code == errc::denied ? "over_budget" : "resting"}}
            );
            co_return e;
        }
        SystemFiles files;
        ai::ModelReply reply;
        const auto talk = [&] {
            auto model = ai::create_model(place_of(provider), ai::real_seams(http_, s_.clock, files));
            if (model)
                reply = (*model)->ask(question.request, cancel_);
            else
                reply.answer = model.error();
        };
        co_await offload(pool_, talk);
        settle(call, reply, question, settings, judge);
        work->tokens += call.input_tokens + call.output_tokens;
        work->cost_micros += call.cost_micros;
        Store::Job write = [call](Database& db) { return sql::settle_ai_call(db, call); };
        if (auto settled = co_await s_.store.write(std::move(write)); !settled)
            log::warn("a question was not settled, its reserve stays counted: {}", settled.error().text);
        s_.metrics.add("heald_llm_requests_total", {{"provider", provider.name}, {"outcome", call.outcome}});
        const std::pair<const char*, std::int64_t> kinds[] = {
            {"input", call.input_tokens - call.cached_tokens},
            {"cached", call.cached_tokens},
            {"output", call.output_tokens}};
        for (const auto& [kind, n] : kinds) {
            s_.metrics.add(
                "heald_llm_tokens_total",
                {{"provider", provider.name}, {"model", provider.model}, {"kind", kind}},
                static_cast<double>(n)
            );
        }
        s_.metrics.add(
            "heald_llm_cost_total", {{"provider", provider.name}}, static_cast<double>(call.cost_micros) / 1e6
        );
        if (!reply.answer) co_return reply.answer.error();
        co_return std::move(*reply.answer);
    }

    /// From the reserve to what it was.
    static void settle(
        sql::AiCall& call,
        const ai::ModelReply& reply,
        const ai::Question& question,
        const AiSettings& settings,
        const Judge& judge
    ) {
        call.took = reply.took;
        call.tries = reply.tries;
        if (!reply.answer) {
            call.outcome =
                reply.off_until || reply.answer.error().code == errc::overloaded ? "limited" : "failed";
            call.error = reply.off_until ? ai::off_until_text(*reply.off_until, reply.answer.error().text)
                                         : reply.answer.error().text;
            if (!reply.may_have_cost) call.input_tokens = call.output_tokens = call.cost_micros = 0;
            return;
        }
        const auto& u = reply.answer->usage;
        // A server that counts nothing is taken at our own estimate.
        const bool counted = u.input > 0 || u.output > 0;
        call.input_tokens = counted ? u.input : question.tokens;
        call.cached_tokens = std::min(u.cached, call.input_tokens);
        call.output_tokens = counted ? u.output : ai::tokens_of(reply.answer->text);
        call.cost_micros =
            cost_of(settings, call.model, call.input_tokens, call.cached_tokens, call.output_tokens);
        call.outcome = judge(*reply.answer);
    }

    // --- the end of it

    static json::array texts(const std::vector<std::string>& items) {
        return json::array(items.begin(), items.end());
    }

    /// Suggestions of all, the best of each first, up to three; what names the same title and files is one.
    std::vector<sql::SuggestionRow> suggestions_of(const Work& work, const std::vector<Opinion>& opinions) {
        std::vector<sql::SuggestionRow> rows;
        for (std::size_t i = 0; i < most_suggestions; ++i) {
            for (const auto& o : opinions) {
                if (!o.ok || i >= o.analysis.suggestions.size() || rows.size() >= most_suggestions) continue;
                const auto& s = o.analysis.suggestions[i];
                const auto files = texts(s.files);
                const bool there = std::any_of(rows.begin(), rows.end(), [&](const auto& r) {
                    return r.fix_title == s.title && r.files_affected == files;
                });
                if (there) continue;
                sql::SuggestionRow row;
                row.id = new_id(s_.clock);
                row.bug = work.bug;
                row.rank = static_cast<unsigned>(rows.size() + 1);
                row.provider = o.provider;
                row.model = o.model;
                row.root_cause = o.analysis.root_cause;
                row.root_cause_hypothesis = o.analysis.root_cause_hypothesis;
                row.bug_classification = o.analysis.bug_classification;
                row.estimated_impact = o.analysis.estimated_impact;
                row.fix_title = s.title;
                row.fix_description = s.description;
                row.fix_approach = s.approach;
                row.files_affected = files;
                row.confidence_score = s.confidence;
                row.reasoning = s.reasoning;
                row.breaking_changes = texts(s.breaking_changes);
                row.potential_side_effects = texts(s.side_effects);
                row.test_cases = texts(s.test_cases);
                row.prevention_tips = texts(o.analysis.prevention_tips);
                row.edits = i < o.edits.size() ? o.edits[i] : "";
                row.revision = work.revision;
                rows.push_back(std::move(row));
            }
        }
        return rows;
    }

    static json::object context_of(const Work& work, const std::vector<Opinion>& opinions) {
        json::array code, errors;
        for (const auto& c : work.input.code) {
            code.push_back(json::object{
                {"file", c.file},
                {"first_line", c.first_line},
                {"line", c.line},
                {"function", to_valid_utf8(c.function)}});
        }
        json::object context{
            {"code", std::move(code)},
            {"log_lines", work.input.logs.size()},
            {"similar", work.input.similar.size()}};
        for (const auto& o : opinions) {
            if (!o.error.empty())
                errors.push_back(json::object{{"provider", o.provider}, {"error", to_valid_utf8(o.error)}});
            if (o.ok && !context.contains("shown")) {
                context["shown"] = o.shown;
                context["redactions"] = o.redactions;
            }
        }
        context["errors"] = std::move(errors);
        return context;
    }

    /// Stores what was found, moves the bug on and tells of it.
    asio::awaitable<result<json::object>> conclude(
        std::shared_ptr<Work> work,
        const sql::AnalysisInput& input,
        std::shared_ptr<std::vector<Opinion>> opinions
    ) {
        std::vector<ai::Opinion> compared;
        const Opinion* first = nullptr;
        for (const auto& o : *opinions) {
            if (!o.ok) continue;
            if (!first) first = &o;
            compared.push_back({o.provider, o.model, &o.analysis});
        }
        ai::Analysis by_rules;
        if (!first) {
            const auto& q = work->input;
            by_rules = ai::analyze_by_rules(
                {q.error_type,
                 q.message,
                 q.pattern,
                 q.stack_trace,
                 q.level,
                 q.service,
                 q.severity,
                 std::string{string_at(input.bug, "bug_type")},
                 q.occurrences}
            );
        }
        const auto& analysis = first ? first->analysis : by_rules;
        auto row = std::make_shared<sql::AnalysisRow>();
        row->id = new_id(s_.clock);
        row->bug = work->bug;
        row->at = s_.clock.wall();
        row->source = !first ? "rules" : first->cached ? "cache" : "model";
        row->provider = first ? first->provider : "";
        row->model = first ? first->model : "";
        row->revision = work->revision;
        row->root_cause = analysis.root_cause;
        row->root_cause_hypothesis = analysis.root_cause_hypothesis;
        row->bug_classification = analysis.bug_classification;
        row->estimated_impact = analysis.estimated_impact;
        row->prevention_tips = texts(analysis.prevention_tips);
        row->comparison = compared.size() > 1 ? ai::compare(compared) : json::object{};
        row->context = context_of(*work, *opinions);
        auto suggestions =
            std::make_shared<std::vector<sql::SuggestionRow>>(suggestions_of(*work, *opinions));
        auto status = std::make_shared<std::string>();
        auto stored = std::make_shared<json::array>();
        Store::Job job = [this, work, row, suggestions, status, stored](Database& db) -> result<void> {
            HEAL_TRY(sql::insert_analysis(db, *row));
            if (!suggestions->empty())
                HEAL_TRY(sql::replace_suggestions(db, work->bug, *suggestions, row->at));
            HEAL_TRY(move_on(db, *work, *row, !suggestions->empty(), *status));
            const json::object detail{
                {"bug", work->code},
                {"analysis", row->id},
                {"source", row->source},
                {"provider", row->provider},
                {"tokens", work->tokens},
                {"suggestions", suggestions->size()}};
            HEAL_TRY(
                sql::append_audit(db, row->at, work->actor, "ai.analyze", work->bug, json::serialize(detail))
            );
            auto listed = sql::list_suggestions(db, work->bug, false);
            if (!listed) return listed.error();
            *stored = std::move(*listed);
            return {};
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        s_.metrics.add("heald_analyses_total", {{"source", row->source}});
        s_.feed.publish(
            "bug", {{"bug", work->code}, {"action", "analyze"}, {"status", *status}, {"source", row->source}}
        );
        if (!suggestions->empty() && suggested_) {
            std::string bug = work->bug;
            auto told = co_await suggested_(std::move(bug));
            if (!told) log::warn("the suggestions for {} are not tried: {}", work->code, told.error().text);
        }
        co_return json::object{
            {"bug_id", work->bug},
            {"bug_code", work->code},
            {"status", *status},
            {"analysis_id", row->id},
            {"source", row->source},
            {"provider", row->provider},
            {"model", row->model},
            {"revision", row->revision},
            {"tokens", work->tokens},
            {"cost", static_cast<double>(work->cost_micros) / 1e6},
            {"root_cause", row->root_cause},
            {"root_cause_hypothesis", row->root_cause_hypothesis},
            {"bug_classification", row->bug_classification},
            {"estimated_impact", row->estimated_impact},
            {"prevention_tips", row->prevention_tips},
            {"comparison", row->comparison},
            {"context", row->context},
            {"suggestions", std::move(*stored)}};
    }

    /// detected, reopened, failed → analyzed → fix_suggested; one that is further already stays. A bug that a
    /// person moved meanwhile keeps what they said.
    result<void> move_on(
        Database& db, const Work& work, const sql::AnalysisRow& row, bool suggests, std::string& ret_status
    ) const {
        auto bug = sql::show_bug(db, work.bug);
        if (!bug) return bug.error();
        BugStatus status = BugStatus::detected;
        parse_bug_status(string_at(*bug, "status"), status);
        const std::string by =
            row.source == "rules" ? "by rules" : fmt::format("by {} ({})", row.provider, row.source);
        const std::string text = fmt::format("{}: {}", by, row.root_cause.substr(0, 1000));
        const bool merged = !string_at(*bug, "merged_into").empty();
        const auto step = [&](BugStatus to) -> result<void> {
            HEAL_TRY(sql::move_bug(db, s_.clock, work.bug, to, work.actor, text));
            status = to;
            return {};
        };
        if (!merged &&
            (status == BugStatus::detected || status == BugStatus::reopened || status == BugStatus::failed)) {
            HEAL_TRY(step(BugStatus::analyzed));
        } else {
            HEAL_TRY(sql::note_bug(
                db, s_.clock, work.bug, work.actor, "analyze", to_string(status), to_string(status), text
            ));
        }
        if (!merged && suggests && status == BugStatus::analyzed) HEAL_TRY(step(BugStatus::fix_suggested));
        ret_status = to_string(status);
        return {};
    }

    Shared& s_;
    std::unique_ptr<CodeReader> code_;
    net::HttpClient& http_;
    std::atomic<bool> cancel_{false};
    std::map<std::string, std::shared_ptr<Flight>> flights_;
    std::deque<std::string> urgent_;
    bool draining_ = false;
    unsigned running_ = 0;
    asio::steady_timer free_;
    std::shared_ptr<const ai::Redactor> redactor_;
    std::shared_ptr<const Settings> redactor_for_;
    std::function<asio::awaitable<result<void>>(std::string bug)> suggested_;
    std::function<asio::awaitable<result<bool>>(std::string bug)> before_;
    asio::thread_pool pool_;
};

}  // namespace

std::unique_ptr<Analyst> create_analyst(
    Shared& shared, std::unique_ptr<CodeReader> code, net::HttpClient& http
) {
    return std::make_unique<AnalystImpl>(shared, std::move(code), http);
}

}  // namespace heal
