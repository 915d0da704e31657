#include "service/engine.hpp"

#include "base/id.hpp"
#include "base/log.hpp"
#include "base/offload.hpp"
#include "base/tasks.hpp"
#include "ingest/decoder.hpp"
#include "ingest/gzip.hpp"
#include "ingest/tail.hpp"
#include "net/http_client.hpp"
#include "runner/plugins.hpp"
#include "service/analyst.hpp"
#include "service/approvals.hpp"
#include "service/brain.hpp"
#include "service/cluster.hpp"
#include "service/code_reader.hpp"
#include "service/config_keeper.hpp"
#include "service/fixer.hpp"
#include "service/healer.hpp"
#include "service/hearing.hpp"
#include "service/ingest_journal.hpp"
#include "service/local_healing.hpp"
#include "service/repository_desk.hpp"
#include "service/store_jobs.hpp"
#include "service/trigger_watch.hpp"
#include "service/trust.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <thread>

namespace heal {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

class EngineImpl final : public Engine {
public:
    EngineImpl(
        asio::io_context& io, const Clock& clock, Files& files, Settings settings, std::string config_path
    )
        : io_(io),
          clock_(clock),
          files_(files),
          feed_(clock),
          settings_(std::make_shared<const Settings>(std::move(settings))),
          config_path_(std::move(config_path)),
          started_(clock.wall()),
          workers_(std::max(1U, std::thread::hardware_concurrency())),
          minute_(io) {}

    asio::awaitable<result<void>> start() override {
        const auto& s = *settings_;
        HEAL_CO_TRY(files_.make_folder(s.state_dir));
        for (const auto& folder : {s.plugins_dir, s.scripts_dir}) HEAL_CO_TRY(files_.make_folder(folder));
        RunnerSettings runner;
        runner.host_binary = s.host_binary;
        runner.plugins_folder = s.plugins_dir;
        runner.scripts_folder = s.scripts_dir;
        runner.state_folder = s.state_dir + "/strategies";
        runner.max_children = s.max_children;
        runner.warm_for = s.warm_for;
        runner.memory_bytes = s.host_memory_bytes;
        if (!files_.exists(s.host_binary)) {
            co_return fail(
                errc::not_found,
                fmt::format(
                    "{} does not exist; heal-host must lie beside heald, or set host_binary", s.host_binary
                )
            );
        }
        prober_ = create_prober();
        if (LocalHealing::wanted(s)) HEAL_CO_TRY(co_await start_local(runner));
        HEAL_CO_TRY(co_await open_the_store());
        if (!s.store_url.empty()) {
            cluster_ = std::make_unique<Cluster>(io_, *store_, clock_, s.node);
            cluster_->set_foreign(foreign_targets());
            HEAL_CO_TRY(co_await cluster_->join());
        }
        if (!plugins_) plugins_ = create_plugins(io_, runner, clock_);
        shared_ = std::unique_ptr<Shared>(new Shared{
            io_,
            clock_,
            cluster_ ? cluster_->store() : *store_,
            plugins_->runner(),
            *prober_,
            feed_,
            metrics_,
            settings_,
            {},
            {},
            nullptr,
            nullptr,
            cluster_.get()});
        shared_->address = address_;
        shared_->ticket_key = random_hex(32);
        if (local_) {
            shared_->elsewhere = [this](const std::string& target, const std::string& environment) {
                return local_->busy() && local_->owns(target, environment);
            };
        }
        healer_ = create_healer(*shared_);
        brain_ = create_brain(*shared_, *healer_);
        approvals_ = create_approvals(*shared_, s.state_dir);
        shared_->approvals = approvals_.get();
        trust_ = create_trust(*shared_);
        shared_->trust = trust_.get();
        approvals_->set_binder("heal", [this](const Approval& a) { return healer_->binding(a); });
        http_ = net::create_http_client();
        desk_ = std::make_unique<RepositoryDesk>(s.state_dir + "/repositories");
        analyst_ = create_analyst(*shared_, create_code_reader(*desk_), *http_);
        fixer_ = create_fixer(*shared_, *analyst_, *desk_, *http_, s.state_dir + "/patches");
        analyst_->before_models([this](std::string bug) { return fixer_->try_patterns(std::move(bug)); });
        approvals_->set_binder("patch", [this](const Approval& a) { return fixer_->binding(a); });
        approvals_->on_change("patch", [this](const Approval& a) { fixer_->approval_changed(a); });
        analyst_->on_suggested([this](std::string bug) { return fixer_->suggested(std::move(bug), "heald"); }
        );
        shared_->on_heard = [this](
                                const std::string& f, const std::string& e, const std::string& r, Time at
                            ) { fixer_->heard(f, e, r, at); };
        approvals_->on_change("heal", [this](const Approval& a) { healer_->approval_changed(a); });
        triggers_ = std::make_unique<TriggerWatch>(*shared_, *healer_);
        hearing_ = std::make_unique<Hearing>(*shared_, *healer_, *triggers_);
        hearing_->on_bug_opened([this](const std::string& bug, Severity severity) {
            analyst_->opened(bug, severity);
        });

        std::vector<sql::OffsetRow> offsets;
        std::optional<std::string> pause;
        std::vector<sql::FingerprintDecision> decisions;
        HEAL_CO_TRY(co_await store_->write([&](Database& db) -> result<void> {
            auto rows = sql::load_offsets(db);
            if (!rows) return rows.error();
            offsets = std::move(*rows);
            auto overrides = sql::load_strategy_settings(db);
            if (!overrides) return overrides.error();
            overrides_ = std::move(*overrides);
            auto decided = sql::load_fingerprint_decisions(db);
            if (!decided) return decided.error();
            decisions = std::move(*decided);
            auto value = sql::load_engine_state(db, "pause");
            if (!value) return value.error();
            pause = std::move(*value);
            return {};
        }));
        apply_pause(pause.value_or(""));
        hearing_->set_aliases(std::move(decisions));
        if (!local_) co_await plugins_->start();
        refresh_strategies();
        plugins_->on_change([this] {
            refresh_strategies();
            healer_->strategies_changed();
            feed_.publish("strategies", {{"artifacts", plugins_->entries().size()}});
        });
        HEAL_CO_TRY(co_await hearing_->recover());
        HEAL_CO_TRY(co_await brain_->start());
        HEAL_CO_TRY(co_await trust_->start());
        HEAL_CO_TRY(co_await triggers_->start());
        HEAL_CO_TRY(co_await healer_->recover());
        HEAL_CO_TRY(co_await fixer_->recover());
        if (local_) {
            local_->set_shared_side(*shared_, *healer_);
            hearing_->set_local(local_.get());
        }
        if (cluster_ && s.store_journal_bytes > 0) {
            auto journal = IngestJournal::open(*shared_, s.store_journal_bytes);
            if (!journal) co_return journal.error();
            journal_ = std::move(*journal);
            HEAL_CO_TRY(journal_->overlay(offsets));
            hearing_->set_journal(journal_.get());
            IngestJournal::Replay replay = [this](Batch batch, IngestJournal::Done done) {
                if (local_ && local_->busy())
                    return done(fail(errc::unavailable, "what was healed alone is handed over first"));
                hearing_->replay(std::move(batch), std::move(done));
            };
            spawn(io_, journal_->run(std::move(replay)), "the replay of the journal");
        }
        start_tail(std::move(offsets));
        keeper_ = std::make_unique<ConfigKeeper>(
            io_.get_executor(),
            s.state_dir + "/config-versions",
            files_,
            clock_,
            *prober_,
            [this] { return settings_; }
        );
        spawn(io_, keeper_->run(), "keeping configuration versions");
        if (cluster_) {
            cluster_->listen(s.store_url, s.store_password);
            spawn(io_, cluster_->run(cluster_events()), "the heartbeat");
        }
        jobs_ = std::make_unique<StoreJobs>(
            io_, *store_, clock_, [this] { return settings_; }, s.node
        );
        jobs_->add("ai_fix_check", "Bugs without analysis are analysed", Schedule::every(30min), [this] {
            return analyst_->look_for_work();
        });
        jobs_->add(
            "code_scan",
            "Looks for places of patterns that caused bugs before",
            Schedule::every(std::chrono::hours{7 * 24}),
            [this] { return fixer_->scan_code(); }
        );
        jobs_->add(
            "bug_backup",
            "All bugs as CSV, JSON and NDJSON into data/bugs/",
            Schedule::daily(130min),
            [this] { return back_up_bugs(); }
        );
        spawn(io_, jobs_->run(), "the jobs");
        spawn(io_, triggers_->run(), "the triggers");
        spawn(io_, every_minute(), "housekeeping");
        ready_ = true;
        co_return result<void>{};
    }

    asio::awaitable<void> stop(std::chrono::milliseconds grace) override {
        ready_ = false;
        minute_.cancel();
        if (keeper_) keeper_->stop();
        if (triggers_) triggers_->stop();
        if (jobs_) jobs_->stop();
        if (cluster_) cluster_->stop();
        if (journal_) journal_->stop();
        stopping_.store(true);
        if (tail_) {
            // The tail's thread may wait for this loop to take a batch: end it from another one.
            auto tail = tail_;
            asio::thread_pool ender{1};
            const auto end = [&tail] { tail->stop(); };
            co_await offload(ender, end);
        }
        if (desk_) desk_->stop();
        if (fixer_) co_await fixer_->stop();
        if (analyst_) co_await analyst_->stop();
        if (local_) co_await local_->stop(grace);
        if (healer_) co_await healer_->stop(grace);
        if (plugins_) co_await plugins_->runner().stop();
        // What was taken in is committed before the end.
        for (int i = 0; hearing_ && hearing_->pending() > 0 && i < 500; ++i) co_await sleep_for(10ms);
        if (cluster_) co_await cluster_->leave();
        workers_.join();
        if (store_) store_->stop();
    }

    result<void> reload(const std::string& actor) override {
        auto loaded = load_settings(config_path_);
        const bool ok = loaded.settings.has_value();
        metrics_.set("heald_config_last_reload_successful", {}, ok ? 1 : 0);
        audit(actor, "config.reload", config_path_, {{"ok", ok}});
        if (!ok) {
            std::string text;
            for (const auto& e : loaded.errors) text += (text.empty() ? "" : "\n") + e;
            log::error("the configuration was not taken, the old one stays: {}", text);
            return fail(errc::invalid_input, std::move(text));
        }
        auto next = std::move(*loaded.settings);
        const auto& now = *settings_;
        const std::pair<const char*, bool> fixed[] = {
            {"state_dir", next.state_dir != now.state_dir},
            {"store", next.store_url != now.store_url || next.store_password != now.store_password},
            {"http.listen", next.http_listen != now.http_listen},
            {"plugins_dir", next.plugins_dir != now.plugins_dir},
            {"scripts_dir", next.scripts_dir != now.scripts_dir}};
        for (const auto& [key, changed] : fixed) {
            if (changed) log::warn("{} changed in the configuration: that needs a restart", key);
        }
        settings_ = std::make_shared<const Settings>(std::move(next));
        shared_->settings = settings_;
        if (local_) local_->set_settings(settings_);
        if (cluster_) cluster_->set_foreign(foreign_targets());
        refresh_strategies();
        healer_->strategies_changed();
        spawn(io_, triggers_->start(), "restoring the triggers of the new configuration");
        restart_tail();
        log::info("the configuration was read again");
        return {};
    }

    asio::awaitable<result<IngestAnswer>> ingest(
        std::string body, std::string content_type, std::string encoding, std::string key, std::string service
    ) override {
        if (!ready_) co_return fail(errc::unavailable, "heald is starting or stopping; try again");
        if (!has_room()) {
            metrics_.add("heald_ingest_batches_total", {{"source", "http"}, {"outcome", "refused"}});
            co_return fail(errc::overloaded, "too much waits for the store; try again in a second");
        }
        struct Work {
            result<DecodeReport> report = DecodeReport{};
            std::vector<Batch> batches;
        };
        Work work;
        const auto rules = settings_->rules;
        const auto limit = settings_->http_max_body_bytes;
        const auto decode = [&] {
            // One decoder per worker thread; its buffers and its index of texts stay warm.
            thread_local LogDecoder decoder;
            thread_local std::unique_ptr<BatchBuilder> builder;
            if (!builder) builder = std::make_unique<BatchBuilder>(clock_);
            std::string inflated;
            std::string_view text = body;
            if (encoding == "gzip") {
                auto out = inflate_body(body, limit * 4);
                if (!out) {
                    work.report = out.error();
                    return;
                }
                inflated = std::move(*out);
                text = inflated;
            } else if (!encoding.empty() && encoding != "identity") {
                work.report = fail(errc::invalid_input, "Content-Encoding must be gzip or identity");
                return;
            }
            DecodeDefaults defaults;
            defaults.service = service;
            defaults.source = "http";
            defaults.rules = rules;
            work.report = decoder.decode_logs(text, content_type, defaults, *builder);
            if (work.report)
                work.batches.push_back(builder->take());
            else
                builder->take();
        };
        ++decoding_;
        co_await offload(workers_, decode);
        --decoding_;
        if (!work.report) co_return work.report.error();
        IngestAnswer answer;
        answer.accepted = work.report->records;
        answer.below_level = work.report->below_level;
        answer.malformed = work.report->malformed;
        answer.self = work.report->self;
        for (const auto& e : work.report->errors)
            answer.errors.push_back(json::object{{"line", e.line}, {"text", to_valid_utf8(e.text)}});
        for (std::size_t i = 0; i < work.batches.size(); ++i) {
            auto& batch = work.batches[i];
            batch.source = "http";
            // One request may need several batches; each has a key of its own, the same at every delivery.
            if (!key.empty()) batch.batch_key = fmt::format("http:{}#{}", key, i);
            auto outcome =
                co_await asio::async_initiate<const asio::use_awaitable_t<>, void(result<Hearing::Accepted>)>(
                    [&](auto handler) {
                        auto done = std::make_shared<decltype(handler)>(std::move(handler));
                        hearing_->accept(std::move(batch), false, [done](result<Hearing::Accepted> r) {
                            std::move (*done)(std::move(r));
                        });
                    },
                    asio::use_awaitable
                );
            if (!outcome) co_return outcome.error();
            answer.duplicate = outcome->duplicate && (i == 0 || answer.duplicate);
        }
        co_return answer;
    }

    bool has_room() const override {
        return hearing_ && hearing_->has_room() && decoding_ < settings_->queue_batches;
    }

    asio::awaitable<result<json::object>> query(std::function<result<json::object>(Database&)> job) override {
        if (!store_) co_return fail(errc::unavailable, "the store is not open yet");
        co_return co_await store_->read<json::object>(std::move(job));
    }

    json::array strategies() const override { return shared_ ? shared_->strategies.list() : json::array{}; }

    result<json::object> strategy(const std::string& name) const override {
        const auto* entry = shared_ ? shared_->strategies.find(name) : nullptr;
        if (!entry)
            return fail(
                errc::not_found,
                fmt::format(
                    "there is no strategy '{}'; GET /api/v1/strategies lists them",
                    to_valid_utf8(name.substr(0, 100))
                )
            );
        return shared_->strategies.show(*entry);
    }

    asio::awaitable<result<json::object>> set_strategy(std::string name, json::object body, std::string actor)
        override {
        if (auto known = strategy(name); !known) co_return known.error();
        sql::StrategySetting setting;
        setting.strategy = name;
        for (const auto& [key, value] : body) {
            if (key != "priority" && key != "enabled" && key != "autonomy" && key != "floor") {
                co_return fail(
                    errc::invalid_input,
                    fmt::format(
                        "{}: unknown key; known are priority, enabled, autonomy, floor",
                        std::string_view{key.data(), key.size()}
                    )
                );
            }
        }
        if (body.empty())
            co_return fail(errc::invalid_input, "give at least one of priority, enabled, autonomy, floor");
        const FieldReader in{body, "body"};
        if (body.contains("priority")) {
            auto n = in.required_int("priority", -1'000'000, 1'000'000);
            if (!n) co_return n.error();
            setting.priority = *n;
        }
        if (body.contains("enabled")) {
            auto b = in.bool_or("enabled", true);
            if (!b) co_return b.error();
            setting.enabled = *b;
        }
        if (body.contains("floor")) {
            auto d = in.double_or("floor", 0, 0, 1);
            if (!d) co_return d.error();
            setting.floor = *d;
        }
        if (body.contains("autonomy")) {
            Autonomy a{};
            if (!parse_autonomy(string_at(body, "autonomy"), a)) {
                co_return fail(
                    errc::invalid_input, "body.autonomy: must be one of off, shadow, approve, auto"
                );
            }
            setting.autonomy = a;
        }
        std::vector<sql::StrategySetting> all;
        HEAL_CO_TRY(co_await store_->write([&](Database& db) -> result<void> {
            HEAL_TRY(sql::save_strategy_setting(db, setting, actor, clock_.wall()));
            HEAL_TRY(sql::append_audit(db, clock_.wall(), actor, "strategy.set", name, json::serialize(body))
            );
            auto rows = sql::load_strategy_settings(db);
            if (!rows) return rows.error();
            all = std::move(*rows);
            return {};
        }));
        overrides_ = std::move(all);
        refresh_strategies();
        healer_->strategies_changed();
        wake_nodes();
        co_return strategy(name);
    }

    asio::awaitable<result<json::object>> decide_fingerprint(
        std::string id, std::string into, std::string reason, std::string actor
    ) override {
        std::vector<sql::FingerprintDecision> all;
        HEAL_CO_TRY(co_await store_->write([&](Database& db) -> result<void> {
            for (const auto& each : {id, into}) {
                auto known = sql::show_fingerprint(db, each, clock_.wall());
                if (!known) return known.error();
                if (string_at(*known, "id") != each)
                    return fail(errc::invalid_input, "give all 16 digits of a fingerprint here");
            }
            HEAL_TRY(sql::save_fingerprint_decision(db, {id, into}, actor, reason, clock_.wall()));
            const json::object detail{{"into", into}, {"reason", to_valid_utf8(reason)}};
            HEAL_TRY(sql::append_audit(
                db,
                clock_.wall(),
                actor,
                id == into ? "fingerprint.apart" : "fingerprint.merge",
                id,
                json::serialize(detail)
            ));
            auto rows = sql::load_fingerprint_decisions(db);
            if (!rows) return rows.error();
            all = std::move(*rows);
            return {};
        }));
        hearing_->set_aliases(std::move(all));
        co_return json::object{{"fingerprint", id}, {"canonical", into}};
    }

    asio::awaitable<result<json::object>> change_bug(std::string id, sql::BugChange change) override {
        if (!store_) co_return fail(errc::unavailable, "the store is not open yet");
        auto bug = std::make_shared<json::object>();
        Store::Job job = [this, bug, id, change](Database& db) -> result<void> {
            auto changed = sql::change_bug(db, clock_, id, change);
            if (!changed) return changed.error();
            *bug = std::move(*changed);
            return {};
        };
        HEAL_CO_TRY(co_await store_->write(std::move(job)));
        feed_.publish(
            "bug",
            {{"bug", string_at(*bug, "bug_code")},
             {"action", change.action},
             {"status", string_at(*bug, "status")}}
        );
        co_return std::move(*bug);
    }

    result<void> release(const std::string& name, const std::string& actor) override {
        HEAL_TRY(plugins_->release(name));
        audit(actor, "strategy.release", name, {});
        return {};
    }

    asio::awaitable<result<json::object>> vote(
        std::string event, bool yes, json::object body, std::string actor
    ) override {
        if (!healer_) co_return fail(errc::unavailable, "heald is starting; try again");
        for (const auto& [key, value] : body) {
            const std::string_view name{key.data(), key.size()};
            if (name != "strategy" && name != "reason" && name != "digest" && name != "break_glass")
                co_return fail(
                    errc::invalid_input,
                    fmt::format(
                        "body.{}: unknown key; known are strategy, reason, digest, break_glass",
                        to_valid_utf8(name)
                    )
                );
        }
        Vote cast;
        cast.actor = actor;
        cast.yes = yes;
        cast.break_glass = yes && bool_at(body, "break_glass");
        cast.reason = std::string{string_at(body, "reason")};
        if (cast.break_glass && cast.reason.empty())
            co_return fail(errc::invalid_input, "body.reason: is missing; breaking the glass needs one");
        auto wanted = healer_->ask_for(event, std::string{string_at(body, "strategy")}, cast.break_glass);
        if (!wanted) {
            if (!cluster_ || wanted.error().code != errc::not_found) co_return wanted.error();
            // Another node may heal it: it gets the vote.
            std::string request = yes ? "approve" : "reject";
            auto handed = co_await approvals_->forward(
                std::move(event), std::move(request), std::move(body), std::move(actor)
            );
            if (!handed) co_return handed.error();
            co_return json::object{{"forwarded", true}};
        }
        auto request = co_await approvals_->ask(std::move(*wanted));
        if (!request) co_return request.error();
        std::string id = request->id, seen{string_at(body, "digest")};
        auto decided = co_await approvals_->decide(std::move(id), std::move(cast), std::move(seen));
        if (!decided) co_return decided.error();
        co_return to_json(*decided);
    }

    asio::awaitable<result<void>> pause(bool on, std::string reason, std::string actor) override {
        const std::string value =
            on ? json::serialize(json::object{
                     {"reason", reason}, {"by", actor}, {"at", to_rfc3339(clock_.wall())}})
               : "";
        // Takes effect before it is durable: stopping must not wait for a slow disk.
        if (on) apply_pause(value);
        auto stored = co_await store_->write([&](Database& db) -> result<void> {
            HEAL_TRY(sql::save_engine_state(db, "pause", value, clock_.wall()));
            return sql::append_audit(
                db,
                clock_.wall(),
                actor,
                on ? "engine.pause" : "engine.resume",
                "engine",
                json::serialize(json::object{{"reason", reason}})
            );
        });
        if (!stored) co_return stored.error();
        apply_pause(value);
        wake_nodes();
        feed_.publish("state", {{"paused", on}, {"reason", to_valid_utf8(reason)}});
        co_return result<void>{};
    }

    asio::awaitable<result<json::object>> job(std::string name, std::string what, std::string actor)
        override {
        if (!ready_) co_return fail(errc::unavailable, "heald is starting or stopping; try again");
        HEAL_CO_TRY(co_await store_->write([&](Database& db) -> result<void> {
            if (what != "run") HEAL_TRY(sql::enable_job(db, name, what == "resume"));
            return sql::append_audit(db, clock_.wall(), actor, "job." + what, name, "{}");
        }));
        if (what != "run") co_return json::object{{"job_name", name}, {"enabled", what == "resume"}};
        co_return co_await jobs_->run_now(name);
    }

    json::object status() const override {
        json::object o{
            {"version", HEAL_VERSION},
            {"started_at", to_rfc3339(started_)},
            {"ready", not_ready().empty()},
            {"not_ready", not_ready().empty() ? json::value(nullptr) : json::value(not_ready())},
            {"paused", !pause_.empty()},
            {"pause", object_or_null(pause_)},
            {"dry_run", settings_->dry_run},
            {"state_dir", settings_->state_dir},
            {"config_files", json::array(settings_->files.begin(), settings_->files.end())},
            {"open_incidents", healer_ ? healer_->open_count() : 0},
            {"tracked_fingerprints", hearing_ ? hearing_->tracked() : 0}};
        if (store_) {
            const auto f = store_->figures();
            o["store"] = json::object{
                {"engine", f.engine},
                {"place", to_valid_utf8(f.place)},
                {"connected", f.connected},
                {"reconnects", f.reconnects},
                {"repeated", f.repeated},
                {"doubtful_commits", f.doubts},
                {"kept", f.kept},
                {"commits", f.commits},
                {"writes", f.writes},
                {"failed_commits", f.failed_commits},
                {"queued", f.queued},
                {"last_commit_us", f.last_commit_us},
                {"last_error", f.last_error}};
        }
        if (cluster_) {
            o["cluster"] = json::object{
                {"node", cluster_->node()},
                {"fence", cluster_->fence()},
                {"member", cluster_->holds()},
                {"taken_over", cluster_->taken_over()},
                {"times_lost", cluster_->times_lost()}};
        }
        if (local_) o["alone"] = local_->status();
        if (tail_) {
            const auto t = tail_->stats();
            o["tail"] = json::object{
                {"files", t.files_open},
                {"lines", t.lines},
                {"rotations", t.rotations},
                {"truncations", t.truncations},
                {"gaps", t.gaps},
                {"refused", t.refused},
                {"waiting_for_room", t.sink_full}};
        }
        unsigned loaded = 0, refused = 0, quarantined = 0;
        if (plugins_) {
            for (const auto& entry : plugins_->entries()) {
                (entry.state == ArtifactState::loaded    ? loaded
                 : entry.state == ArtifactState::refused ? refused
                                                         : quarantined) += 1;
            }
        }
        o["artifacts"] = json::object{{"loaded", loaded}, {"refused", refused}, {"quarantined", quarantined}};
        return o;
    }

    std::string not_ready() const override {
        if (!ready_) {
            if (stopping_.load()) return "heald is stopping";
            return waiting_for_.empty() || store_ ? "heald is starting"
                                                  : "heald is starting: " + waiting_for_;
        }
        if (const auto f = store_->figures(); !f.last_error.empty())
            return "the store does not take writes: " + f.last_error;
        return {};
    }

    std::string metrics_text() override {
        metrics_.set("heald_build_info", {{"version", HEAL_VERSION}}, 1);
        metrics_.set("heald_start_time_seconds", {}, static_cast<double>(started_.us) / 1e6);
        metrics_.set("heald_ready", {}, not_ready().empty() ? 1 : 0);
        metrics_.set("heald_paused", {}, pause_.empty() ? 0 : 1);
        if (store_) {
            const auto f = store_->figures();
            if (cluster_) {
                metrics_.set("heald_cluster_member", {{"node", cluster_->node()}}, cluster_->holds() ? 1 : 0);
                metrics_.set("heald_cluster_fence", {}, static_cast<double>(cluster_->fence()));
                metrics_.set(
                    "heald_cluster_taken_over_total", {}, static_cast<double>(cluster_->taken_over())
                );
                metrics_.set("heald_cluster_lost_total", {}, static_cast<double>(cluster_->times_lost()));
            }
            metrics_.set("heald_store_writes_queued", {}, static_cast<double>(f.queued));
            metrics_.set("heald_store_commits_total", {}, static_cast<double>(f.commits));
            metrics_.set("heald_store_failed_commits_total", {}, static_cast<double>(f.failed_commits));
            metrics_.set("heald_store_writes_total", {}, static_cast<double>(f.writes));
            metrics_.set("heald_store_connected", {{"engine", f.engine}}, f.connected ? 1 : 0);
            metrics_.set("heald_store_reconnects_total", {}, static_cast<double>(f.reconnects));
            metrics_.set("heald_store_repeated_transactions_total", {}, static_cast<double>(f.repeated));
            metrics_.set("heald_store_doubtful_commits_total", {}, static_cast<double>(f.doubts));
            metrics_.set("heald_store_writes_kept", {}, static_cast<double>(f.kept));
            metrics_.set("heald_store_last_commit_seconds", {}, static_cast<double>(f.last_commit_us) / 1e6);
        }
        if (hearing_)
            metrics_.set("heald_fingerprints_tracked", {}, static_cast<double>(hearing_->tracked()));
        if (tail_) {
            const auto t = tail_->stats();
            metrics_.set("heald_tail_files", {}, static_cast<double>(t.files_open));
            metrics_.set("heald_tail_rotations_total", {}, static_cast<double>(t.rotations));
            metrics_.set("heald_tail_gaps_total", {}, static_cast<double>(t.gaps));
        }
        if (healer_) {
            const auto& c = healer_->guard_counters();
            for (std::size_t i = 0; i < guard_count; ++i) {
                const Metrics::Labels labels{{"guard", to_string(static_cast<GuardId>(i))}};
                metrics_.set("heald_guard_evaluated_total", labels, static_cast<double>(c.evaluated[i]));
                metrics_.set("heald_guard_tripped_total", labels, static_cast<double>(c.tripped[i]));
                metrics_.set(
                    "heald_guard_input_missing_total", labels, static_cast<double>(c.input_missing[i])
                );
            }
        }
        if (plugins_) {
            for (const auto state :
                 {ArtifactState::loaded, ArtifactState::refused, ArtifactState::quarantined}) {
                const auto n = std::count_if(
                    plugins_->entries().begin(),
                    plugins_->entries().end(),
                    [&](const CatalogEntry& e) { return e.state == state; }
                );
                metrics_.set("heald_strategies", {{"state", to_string(state)}}, static_cast<double>(n));
            }
        }
        return metrics_.text();
    }

    Brain* brain() override { return brain_.get(); }
    Analyst* analyst() override { return analyst_.get(); }
    Approvals* approvals() override { return approvals_.get(); }
    Trust* trust() override { return trust_.get(); }
    Fixer* fixer() override { return fixer_.get(); }
    std::string ticket_actor(std::string_view ticket) const override {
        const auto colon = ticket.find(':');
        const auto end = ticket.rfind(':');
        if (!healer_ || colon == std::string_view::npos || end == colon) return "";
        const auto attempt = ticket.substr(colon + 1, end - colon - 1);
        if (!same_secret(ticket, shared_->ticket(std::string{attempt}))) return "";
        auto strategy = healer_->strategy_of(attempt);
        return strategy.empty() ? "" : "strategy:" + strategy;
    }
    void set_address(std::string address) override { address_ = std::move(address); }
    json::object triggers() const override { return triggers_ ? triggers_->list() : json::object{}; }
    Metrics& metrics() override { return metrics_; }
    Feed& feed() override { return feed_; }
    const Clock& clock() const override { return clock_; }
    const Settings& settings() const override { return *settings_; }

private:
    /// A set of files for each day; the newest 14 days stay.
    asio::awaitable<result<std::int64_t>> back_up_bugs() {
        constexpr std::size_t days = 14;
        static constexpr std::pair<sql::ExportFormat, const char*> forms[] = {
            {sql::ExportFormat::csv, "csv"},
            {sql::ExportFormat::json, "json"},
            {sql::ExportFormat::ndjson, "ndjson"}};
        std::function<result<std::vector<std::string>>(Database&)> read =
            [](Database& db) -> result<std::vector<std::string>> {
            std::vector<std::string> texts;
            for (const auto& [form, name] : forms) {
                auto text = sql::export_bugs(db, form, 1'000'000);
                if (!text) return text.error();
                texts.push_back(std::move(*text));
            }
            return texts;
        };
        auto texts = co_await store_->read<std::vector<std::string>>(std::move(read));
        if (!texts) co_return texts.error();
        const std::string folder = settings_->state_dir + "/data/bugs";
        std::string day = to_rfc3339(clock_.wall()).substr(0, 10);
        std::erase(day, '-');
        result<void> outcome;
        const auto write = [&] {
            outcome = files_.make_folder(folder);
            for (std::size_t i = 0; outcome && i < texts->size(); ++i)
                outcome = files_.write_atomic(
                    fmt::format("{}/bugs-{}.{}", folder, day, forms[i].second), (*texts)[i], 0600
                );
            auto names = files_.list(folder);
            if (!outcome || !names) return;
            std::erase_if(*names, [](const std::string& n) { return !n.starts_with("bugs-"); });
            for (std::size_t i = 0; i + days * std::size(forms) < names->size(); ++i)
                (void)files_.remove(folder + "/" + (*names)[i]);
        };
        co_await offload(workers_, write);
        if (!outcome) co_return outcome.error();
        co_return std::count((*texts)[2].begin(), (*texts)[2].end(), '\n');
    }

    /// What somebody asked for through another node.
    asio::awaitable<result<json::object>> requested(sql::EventRequest r, json::object body) {
        const bool yes = r.request == "approve";
        if (!r.patch) co_return co_await vote(std::move(r.event), yes, std::move(body), std::move(r.actor));
        if (r.request != "cancel")
            co_return co_await fixer_->vote(std::move(r.event), yes, std::move(body), std::move(r.actor));
        std::string reason{string_at(body, "reason")};
        HEAL_CO_TRY(co_await fixer_->cancel(std::move(r.event), std::move(reason), std::move(r.actor)));
        co_return json::object{};
    }

    ClusterEvents cluster_events() {
        ClusterEvents events;
        events.take_up = [this](std::vector<sql::TakenOver> taken) { healer_->take_up(std::move(taken)); };
        events.repositories = [this] { return fixer_->repositories(); };
        events.take_up_patches = [this](std::vector<sql::PatchRun> runs) {
            fixer_->take_up(std::move(runs));
        };
        events.abandon = [this] { return let_go(); };
        events.catch_up = [this](const sql::ClaimedCount& count) { healer_->catch_up(count); };
        events.request = [this](const sql::EventRequest& r) {
            auto parsed = parse_json(r.argument, "argument");
            json::object body;
            if (parsed && parsed->is_object()) body = std::move(parsed->get_object());
            spawn(
                io_, requested(r, std::move(body)), fmt::format("{} of {} by {}", r.request, r.event, r.actor)
            );
        };
        events.shared_state_changed = [this] {
            spawn(io_, follow_changes(), "following what another node changed");
        };
        events.may_take_over = [this] { return !local_ || !local_->busy(); };
        events.health = [this] { return not_ready().empty() ? std::string{"ready"} : not_ready(); };
        events.open_events = [this] { return static_cast<std::int64_t>(healer_->open_count()); };
        return events;
    }

    /// Others go on with what was under way here. What nobody took is taken up again once this node is a
    /// member.
    asio::awaitable<void> let_go() {
        co_await healer_->abandon();
        co_await fixer_->abandon();
        // What fails here is done by the next start.
        cluster_->when_member([this] { spawn(io_, fixer_->recover(), "taking up patch runs of before"); });
    }

    /// People changed something through another node.
    asio::awaitable<void> follow_changes() {
        struct Changed {
            std::vector<sql::StrategySetting> overrides;
            std::vector<sql::FingerprintDecision> decisions;
            std::string pause;
        };
        auto changed = std::make_shared<Changed>();
        Store::Job job = [changed](Database& db) -> result<void> {
            auto overrides = sql::load_strategy_settings(db);
            if (!overrides) return overrides.error();
            changed->overrides = std::move(*overrides);
            auto decisions = sql::load_fingerprint_decisions(db);
            if (!decisions) return decisions.error();
            changed->decisions = std::move(*decisions);
            auto value = sql::load_engine_state(db, "pause");
            if (!value) return value.error();
            changed->pause = value->value_or("");
            return {};
        };
        auto outcome = co_await store_->write(std::move(job));
        if (!outcome) {
            log::error("what another node changed could not be read: {}", outcome.error().text);
            co_return;
        }
        overrides_ = std::move(changed->overrides);
        hearing_->set_aliases(std::move(changed->decisions));
        if (auto holds = co_await brain_->start(); !holds)
            log::error("holds that another node set could not be read: {}", holds.error().text);
        healer_->holds_changed();
        apply_pause(changed->pause);
        refresh_strategies();
        if (auto rungs = co_await trust_->start(); !rungs)
            log::error("trust that another node set could not be read: {}", rungs.error().text);
        healer_->strategies_changed();
    }

    /// Before the store is opened: it may be the store that has to be healed.
    asio::awaitable<result<void>> start_local(const RunnerSettings& runner) {
        plugins_ = create_plugins(io_, runner, clock_);
        // Its own store stands in the place of the engine's, which is not open yet.
        auto opened =
            LocalHealing::open(io_, clock_, plugins_->runner(), *prober_, feed_, metrics_, settings_);
        if (!opened) co_return opened.error();
        local_ = std::move(*opened);
        co_await plugins_->start();
        HEAL_CO_TRY(co_await local_->start());
        local_->set_strategies(
            plugins_->entries(),
            local_->charter() ? local_->charter()->strategies : std::vector<sql::StrategySetting>{}
        );
        spawn(io_, local_->run(), "healing without the shared store");
        co_return result<void>{};
    }

    std::vector<std::string> foreign_targets() const {
        std::vector<std::string> names;
        for (const auto& service : settings_->services) {
            if (!service.owner.empty() && service.owner != settings_->node) names.push_back(service.name);
        }
        return names;
    }

    /// The others look at once.
    void wake_nodes() {
        if (!cluster_) return;
        store_->submit([](Database& db) { return sql::notify_nodes(db, "changed"); }, [](result<void>) {});
    }

    /// A server that is away is waited for; /ready says so meanwhile.
    asio::awaitable<result<void>> open_the_store() {
        const auto& s = *settings_;
        const StoreSettings wanted = store_settings(s);
        std::chrono::milliseconds pause = 200ms;
        for (;;) {
            result<std::unique_ptr<Store>> opened = fail(errc::unavailable, "not tried");
            const auto open = [&] { opened = open_store(wanted, io_.get_executor(), clock_); };
            co_await offload(workers_, open);
            if (opened) {
                store_ = std::move(*opened);
                co_return result<void>{};
            }
            if (opened.error().code != errc::unavailable || s.store_url.empty()) co_return opened.error();
            if (waiting_for_ != opened.error().text) log::warn("waiting: {}", opened.error().text);
            waiting_for_ = opened.error().text;
            if (local_) local_->missing(waiting_for_);
            co_await sleep_for(pause);
            pause = std::min<std::chrono::milliseconds>(pause * 2, 5s);
        }
    }

    static json::value object_or_null(const std::string& text) {
        auto parsed = parse_json(text.empty() ? "null" : text, "pause");
        return parsed ? std::move(*parsed) : json::value(nullptr);
    }

    void apply_pause(const std::string& value) {
        pause_ = value;
        std::string reason;
        if (auto parsed = parse_json(value.empty() ? "{}" : value, "pause"); parsed && parsed->is_object()) {
            reason = fmt::format(
                "{} (by {})", string_at(parsed->get_object(), "reason"), string_at(parsed->get_object(), "by")
            );
        }
        healer_->set_paused(!value.empty(), reason);
        fixer_->set_paused(value.empty() ? "" : reason);
        if (local_) local_->set_paused(!value.empty(), reason);
    }

    void refresh_strategies() {
        shared_->strategies.refresh(plugins_->entries(), *settings_, overrides_);
        if (local_) local_->set_strategies(plugins_->entries(), overrides_);
    }

    void audit(
        const std::string& actor, const std::string& action, const std::string& subject, json::object detail
    ) {
        store_->submit(
            [=, text = json::serialize(detail), now = clock_.wall()](Database& db) {
                return sql::append_audit(db, now, actor, action, subject, text);
            },
            [](result<void> outcome) {
                if (!outcome) log::error("an audit entry was not stored: {}", outcome.error().text);
            }
        );
    }

    // --- following files
    // ------------------------------------------------------------------------------------------

    void start_tail(std::vector<sql::OffsetRow> rows) {
        TailOptions options;
        for (const auto& source : settings_->sources) {
            TailSource t;
            t.path = source.file;
            t.defaults.service = source.service;
            t.defaults.environment = source.environment;
            t.defaults.format = source.format;
            t.defaults.min_level = source.min_level;
            t.defaults.rules = settings_->rules;
            t.join.enabled = source.join;
            t.join.wait = source.join_wait;
            t.from_start = source.from_start;
            t.follow_symlinks = source.follow_symlinks;
            options.sources.push_back(std::move(t));
        }
        for (auto& row : rows)
            options.offsets.push_back({row.source, row.device, row.inode, row.offset, row.head_hash});
        if (options.sources.empty()) return;
        tail_ = create_tail(std::move(options), clock_, [this](Batch&& batch) {
            return take_from_tail(std::move(batch));
        });
        tail_->start();
    }

    /// On the tail's thread: hands a batch to the loop, if there is room.
    bool take_from_tail(Batch&& batch) {
        if (tail_pending_.load() >= max_tail_pending) return false;
        ++tail_pending_;
        asio::post(io_, [this, batch = std::make_shared<Batch>(std::move(batch))]() {
            tail_queue_.push_back(batch);
            if (tail_queue_.size() == 1) accept_from_tail();
        });
        return true;
    }

    /// One after the other: an offset must never be stored before the lines that lie before it. A batch of a
    /// file is not given up, since the file was read on already; it is offered to the store until it is
    /// taken.
    void accept_from_tail() {
        hearing_
            ->accept(Batch{*tail_queue_.front()}, tail_retrying_, [this](result<Hearing::Accepted> outcome) {
                tail_retrying_ = !outcome;
                if (outcome || stopping_.load()) {
                    tail_queue_.pop_front();
                    --tail_pending_;
                    if (!tail_queue_.empty()) accept_from_tail();
                    return;
                }
                auto timer = std::make_shared<asio::steady_timer>(io_, 500ms);
                timer->async_wait([this, timer](boost::system::error_code) { accept_from_tail(); });
            });
    }

    void restart_tail() {
        auto old = std::move(tail_);
        tail_.reset();
        // Ended by a thread of its own; the next one starts where the store says this one came to.
        asio::post(workers_, [this, old] {
            if (old) old->stop();
            asio::post(io_, [this] { spawn(io_, resume_tail(), "following files again"); });
        });
    }

    asio::awaitable<void> resume_tail() {
        while (tail_pending_.load() > 0) co_await sleep_for(5ms);
        std::vector<sql::OffsetRow> offsets;
        auto read = co_await store_->write([&](Database& db) -> result<void> {
            auto rows = sql::load_offsets(db);
            if (!rows) return rows.error();
            offsets = std::move(*rows);
            return {};
        });
        if (!read)
            log::error("the offsets could not be read: {}", read.error().text);
        else if (!stopping_.load() && !tail_)
            start_tail(std::move(offsets));
    }

    asio::awaitable<void> every_minute() {
        while (!stopping_.load()) {
            minute_.expires_after(1min);
            if (!co_await due(minute_)) co_return;
            healer_->housekeeping();
            brain_->housekeeping();
            approvals_->housekeeping();
            triggers_->housekeeping();
            hearing_->forget_idle();
            store_->submit(
                [before = clock_.wall() - std::chrono::hours{24}](Database& db) -> result<void> {
                    auto n = sql::forget_batches(db, before);
                    if (!n) return n.error();
                    return {};
                },
                [](result<void>) {}
            );
        }
    }

    asio::io_context& io_;
    const Clock& clock_;
    Files& files_;
    Feed feed_;
    Metrics metrics_;
    std::shared_ptr<const Settings> settings_;
    std::string config_path_;
    Time started_;
    std::unique_ptr<Store> store_;
    std::unique_ptr<Plugins> plugins_;
    std::unique_ptr<Prober> prober_;
    std::unique_ptr<Cluster> cluster_;
    std::unique_ptr<ConfigKeeper> keeper_;
    std::unique_ptr<StoreJobs> jobs_;
    std::unique_ptr<Shared> shared_;
    std::unique_ptr<Healer> healer_;
    std::unique_ptr<Brain> brain_;
    std::unique_ptr<Approvals> approvals_;
    std::unique_ptr<Trust> trust_;
    std::unique_ptr<TriggerWatch> triggers_;
    std::unique_ptr<net::HttpClient> http_;
    std::unique_ptr<RepositoryDesk> desk_;
    std::unique_ptr<Analyst> analyst_;
    std::unique_ptr<Hearing> hearing_;
    std::unique_ptr<Fixer> fixer_;
    std::string address_ = "127.0.0.1:7480";
    std::unique_ptr<IngestJournal> journal_;
    std::unique_ptr<LocalHealing> local_;
    std::shared_ptr<Tail> tail_;
    asio::thread_pool workers_;
    asio::steady_timer minute_;
    std::vector<sql::StrategySetting> overrides_;
    std::string pause_, waiting_for_;
    std::atomic<bool> stopping_{false};
    std::atomic<unsigned> tail_pending_{0};
    static constexpr unsigned max_tail_pending =
        64;  // batches of files on their way to the store; each up to some MiB
    std::deque<std::shared_ptr<Batch>> tail_queue_;
    bool tail_retrying_ = false;
    unsigned decoding_ = 0;
    bool ready_ = false;
};

}  // namespace

std::unique_ptr<Engine> create_engine(
    asio::io_context& io, const Clock& clock, Files& files, Settings settings, std::string config_path
) {
    return std::make_unique<EngineImpl>(io, clock, files, std::move(settings), std::move(config_path));
}

}  // namespace heal
