#include "service/approvals.hpp"

#include "base/files.hpp"
#include "base/id.hpp"
#include "base/log.hpp"
#include "store/approval_store.hpp"
#include "store/cluster_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace heal {

using namespace std::chrono_literals;

namespace {

namespace asio = boost::asio;

constexpr Duration longest_link = 7 * 24h, shortest_link = 1min;

Error unknown_link() {
    return fail(errc::not_found, "this link is not known here, was used already, or is over");
}

/// What the signature covers: all that the link allows.
std::string signed_text(const sql::ApprovalLink& link) {
    return fmt::format(
        "heald approval link 1\n{}\n{}\n{}\n{}\n{}",
        link.id,
        link.approval,
        link.decision,
        link.expires_at.us,
        link.actor
    );
}

class ApprovalsImpl final : public Approvals {
public:
    ApprovalsImpl(Shared& shared, std::string state_dir)
        : s_(shared), key_file_(std::move(state_dir) + "/approval.key") {}

    asio::awaitable<result<Approval>> ask(ApprovalAsk ask) override {
        Approval fresh;
        fresh.id = new_id(s_.clock);
        fresh.kind = ask.kind;
        fresh.subject = ask.subject;
        fresh.summary = ask.summary;
        fresh.digest = binding_digest(ask.kind, ask.subject, ask.bound);
        fresh.bound = std::move(ask.bound);
        fresh.needed = std::max(1U, ask.needed);
        fresh.requested_at = s_.clock.wall();
        fresh.expires_at = fresh.requested_at + Duration{s_.settings->approvals.expire};
        struct Found {
            std::optional<Approval> open, ended;
        };
        auto found = std::make_shared<Found>();
        Store::Job job = [found, fresh](Database& db) -> result<void> {
            *found = Found{};
            auto known = sql::find_approval(db, fresh.kind, fresh.subject);
            if (!known) return known.error();
            if (*known && (*known)->is_open()) {
                auto& old = **known;
                if (!refresh(old, &fresh.bound, fresh.requested_at)) {
                    found->open = std::move(old);
                    return {};
                }
                HEAL_TRY(record(db, old, "heald", old.reason, fresh.requested_at));
                found->ended = std::move(old);
            }
            HEAL_TRY(sql::insert_approval(db, fresh));
            return sql::append_audit(
                db,
                fresh.requested_at,
                "heald",
                "approval.ask",
                fresh.subject,
                json::serialize(json::object{
                    {"approval", fresh.id}, {"kind", fresh.kind}, {"digest", fresh.digest}})
            );
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        if (found->ended) tell(*found->ended);
        if (found->open) {
            tell(*found->open);  // an approval that was given before a restart counts
            co_return std::move(*found->open);
        }
        tell(fresh);
        co_return fresh;
    }

    asio::awaitable<result<Approval>> decide(std::string id, Vote vote, std::string seen) override {
        auto loaded = co_await show(id);
        if (!loaded) co_return loaded.error();
        if (vote.yes && loaded->needed > 1 && !vote.break_glass && vote.actor.starts_with("http:"))
            co_return fail(
                errc::invalid_input,
                "X-Heald-Actor: is missing; where two people must agree, each says who they are"
            );
        std::optional<json::object> bound;
        if (const auto binder = binders_.find(loaded->kind); binder != binders_.end()) {
            bound = binder->second(*loaded);
            if (!bound && loaded->is_open()) {
                const auto slash = loaded->subject.find('/');
                json::object body{{"digest", seen}, {"reason", vote.reason}};
                if (vote.break_glass) body["break_glass"] = true;
                if (slash != std::string::npos) body["strategy"] = loaded->subject.substr(slash + 1);
                std::string what = loaded->subject.substr(0, slash),
                            request = vote.yes ? "approve" : "reject";
                std::string who = vote.actor;
                auto handed =
                    co_await forward(std::move(what), std::move(request), std::move(body), std::move(who));
                if (handed) co_return std::move(*loaded);
                if (handed.error().code != errc::not_found) co_return handed.error();
                co_return fail(errc::conflict, "nothing waits for this approval any more");
            }
        }
        vote.at = s_.clock.wall();
        struct Outcome {
            Approval approval;
            result<void> cast;
        };
        auto outcome = std::make_shared<Outcome>();
        Store::Job job = [outcome, id, vote, seen, bound](Database& db) -> result<void> {
            auto known = sql::load_approval(db, id);
            if (!known) return known.error();
            if (!*known) return fail(errc::not_found, "there is no such request");
            outcome->approval = std::move(**known);
            auto& a = outcome->approval;
            const bool ended = refresh(a, bound ? &*bound : nullptr, vote.at);
            outcome->cast = cast(a, vote, seen);
            if (!outcome->cast && !ended) return {};
            return record(db, a, outcome->cast ? vote.actor : "heald", vote.reason, vote.at);
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        tell(outcome->approval);
        if (!outcome->cast) co_return outcome->cast.error();
        if (vote.break_glass)
            log::warn("{} broke the glass for {}: {}", vote.actor, outcome->approval.subject, vote.reason);
        co_return std::move(outcome->approval);
    }

    asio::awaitable<result<void>> forward(
        std::string what, std::string request, json::object body, std::string actor
    ) override {
        if (!s_.cluster) co_return fail(errc::not_found, "this node is alone");
        sql::EventRequest asked{
            new_id(s_.clock),
            std::move(what),
            std::move(request),
            json::serialize(body),
            std::move(actor),
            false};
        Store::Job job = [asked, node = s_.settings->node, now = s_.clock.wall()](Database& db
                         ) -> result<void> {
            HEAL_TRY(sql::request_of_event(db, asked, node, now));
            return sql::append_audit(
                db, now, asked.actor, "event." + asked.request, asked.event, asked.argument
            );
        };
        co_return co_await s_.store.write(std::move(job));
    }

    asio::awaitable<result<Approval>> take(std::string kind, std::string subject, json::object bound)
        override {
        auto taken = std::make_shared<Approval>();
        auto refused = std::make_shared<std::string>();
        Store::Job job = [taken, refused, kind, subject, bound, now = s_.clock.wall()](Database& db
                         ) -> result<void> {
            refused->clear();
            auto known = sql::find_approval(db, kind, subject);
            if (!known) return known.error();
            if (!*known) {
                *refused = "nobody was asked";
                return {};
            }
            *taken = std::move(**known);
            const bool ended = refresh(*taken, &bound, now);
            if (taken->state != ApprovalState::approved) {
                *refused = fmt::format(
                    "the request is {}{}{}",
                    to_string(taken->state),
                    taken->reason.empty() ? "" : ": ",
                    taken->reason
                );
                return ended ? record(db, *taken, "heald", taken->reason, now) : result<void>{};
            }
            taken->state = ApprovalState::used;
            taken->ended_at = now;
            return record(db, *taken, "heald", "", now);
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        if (!taken->id.empty()) tell(*taken);
        if (!refused->empty()) co_return fail(errc::denied, *refused);
        co_return std::move(*taken);
    }

    void set_binder(std::string kind, Binder binder) override {
        binders_[std::move(kind)] = std::move(binder);
    }
    void on_change(std::string kind, std::function<void(const Approval&)> changed) override {
        listeners_[std::move(kind)] = std::move(changed);
    }

    asio::awaitable<result<json::object>> make_link(
        std::string id, std::string decision, std::string actor, Duration valid, std::string maker
    ) override {
        if (decision != "approve" && decision != "reject")
            co_return fail(errc::invalid_input, "decision: must be approve or reject");
        if (actor.empty() || actor.size() > 64)
            co_return fail(
                errc::invalid_input, "for: must name the person who gets the link, up to 64 bytes"
            );
        if (valid < shortest_link || valid > longest_link)
            co_return fail(errc::invalid_input, "valid: must be a duration from 1m to 7d");
        auto approval = co_await show(id);
        if (!approval) co_return approval.error();
        if (!approval->is_open())
            co_return fail(errc::conflict, fmt::format("the request is {}", to_string(approval->state)));
        auto secret = key();
        if (!secret) co_return secret.error();
        const Time now = s_.clock.wall();
        sql::ApprovalLink link{
            new_id(s_.clock),
            id,
            std::move(decision),
            to_valid_utf8(actor),
            std::min(now + valid, approval->expires_at)};
        Store::Job job = [link, maker, now](Database& db) -> result<void> {
            HEAL_TRY(sql::insert_approval_link(db, link));
            return sql::append_audit(
                db,
                now,
                maker,
                "approval.link",
                link.approval,
                json::serialize(json::object{
                    {"link", link.id}, {"decision", link.decision}, {"for", link.actor}})
            );
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        const std::string path = fmt::format(
            "/api/v1/approvals/links/{}.{}", link.id, hmac_sha256_hex(*secret, signed_text(link))
        );
        co_return json::object{
            {"path", path},
            {"url", s_.settings->approvals.base_url + path},
            {"decision", link.decision},
            {"for", link.actor},
            {"expires_at", to_rfc3339(link.expires_at)}};
    }

    asio::awaitable<result<json::object>> show_link(std::string token) override {
        auto link = co_await read_link(token);
        if (!link) co_return link.error();
        auto approval = co_await show(link->approval);
        if (!approval) co_return approval.error();
        co_return json::object{
            {"decision", link->decision},
            {"for", link->actor},
            {"expires_at", to_rfc3339(link->expires_at)},
            {"approval", to_json(*approval)}};
    }

    asio::awaitable<result<Approval>> use_link(std::string token, std::string peer) override {
        auto link = co_await read_link(token);
        if (!link) co_return link.error();
        auto taken = std::make_shared<bool>(false);
        Store::Job job = [taken, id = link->id, now = s_.clock.wall()](Database& db) -> result<void> {
            auto used = sql::use_approval_link(db, id, now);
            if (!used) return used.error();
            *taken = *used;
            return {};
        };
        HEAL_CO_TRY(co_await s_.store.write(std::move(job)));
        if (!*taken) co_return unknown_link();
        Vote vote;
        vote.actor = fmt::format("{} (link, {})", link->actor, peer);
        vote.yes = link->decision == "approve";
        if (!vote.yes) vote.reason = "refused by link";
        std::string id = link->approval, no_digest;
        co_return co_await decide(std::move(id), std::move(vote), std::move(no_digest));
    }

    asio::awaitable<result<json::array>> list(std::string state, std::string kind, std::int64_t limit)
        override {
        std::function<result<json::array>(Database&)> job = [=](Database& db) -> result<json::array> {
            auto rows = sql::list_approvals(db, state, kind, limit);
            if (!rows) return rows.error();
            json::array items;
            for (const auto& a : *rows) items.push_back(to_json(a));
            return items;
        };
        co_return co_await s_.store.read<json::array>(std::move(job));
    }

    asio::awaitable<result<Approval>> show(std::string id) override {
        std::function<result<Approval>(Database&)> job = [id](Database& db) -> result<Approval> {
            auto found = sql::load_approval(db, id);
            if (!found) return found.error();
            if (!*found)
                return fail(
                    errc::not_found,
                    fmt::format(
                        "there is no request '{}'; GET /api/v1/approvals lists them",
                        to_valid_utf8(id.substr(0, 64))
                    )
                );
            return std::move(**found);
        };
        co_return co_await s_.store.read<Approval>(std::move(job));
    }

    void housekeeping() override {
        auto ended = std::make_shared<std::vector<Approval>>();
        s_.store.submit(
            [ended, now = s_.clock.wall()](Database& db) -> result<void> {
                ended->clear();
                auto rows = sql::load_expired_approvals(db, now);
                if (!rows) return rows.error();
                for (auto& a : *rows) {
                    if (!refresh(a, nullptr, now)) continue;
                    HEAL_TRY(record(db, a, "heald", a.reason, now));
                    ended->push_back(std::move(a));
                }
                auto gone = sql::forget_approval_links(db, now - 30 * 24h);
                if (!gone) return gone.error();
                return {};
            },
            [this, ended](result<void> outcome) {
                if (!outcome) return log::warn("approvals could not be ended: {}", outcome.error().text);
                for (const auto& a : *ended) tell(a);
            }
        );
    }

private:
    static result<void> record(
        Database& db, const Approval& a, const std::string& actor, const std::string& reason, Time now
    ) {
        HEAL_TRY(sql::update_approval(db, a));
        const bool emergency = a.emergency() && a.state == ApprovalState::approved;
        return sql::append_audit(
            db,
            now,
            actor,
            emergency ? std::string{"approval.break_glass"} : std::string{"approval."} + to_string(a.state),
            a.subject,
            json::serialize(json::object{
                {"approval", a.id},
                {"kind", a.kind},
                {"digest", a.digest},
                {"votes", a.votes.size()},
                {"needed", a.needed},
                {"reason", to_valid_utf8(reason)}})
        );
    }

    void tell(const Approval& a) {
        s_.feed.publish(
            "approval",
            {{"approval", a.id},
             {"kind", a.kind},
             {"subject", a.subject},
             {"state", to_string(a.state)},
             {"summary", to_valid_utf8(a.summary)},
             {"reason", to_valid_utf8(a.reason)}}
        );
        if (const auto it = listeners_.find(a.kind); it != listeners_.end()) it->second(a);
    }

    result<std::string> key() {
        if (!key_.empty()) return key_;
        SystemFiles files;
        if (files.exists(key_file_)) {
            auto text = files.read(key_file_, 4096);
            if (!text) return text.error();
            if (text->size() < 64)
                return fail(errc::corrupt, key_file_ + " is too short for a key; remove it to get a new one");
            return key_ = std::move(*text);
        }
        std::string fresh = random_hex(32);
        HEAL_TRY(files.write_atomic(key_file_, fresh, 0600));
        return key_ = std::move(fresh);
    }

    /// Only one whose signature is ours.
    asio::awaitable<result<sql::ApprovalLink>> read_link(std::string token) {
        const auto dot = token.find('.');
        if (dot == std::string::npos || token.size() > 200) co_return unknown_link();
        auto secret = key();
        if (!secret) co_return secret.error();
        std::function<result<std::optional<sql::ApprovalLink>>(Database&)> job =
            [id = token.substr(0, dot), now = s_.clock.wall()](Database& db) {
                return sql::load_approval_link(db, id, now);
            };
        auto link = co_await s_.store.read<std::optional<sql::ApprovalLink>>(std::move(job));
        if (!link) co_return link.error();
        if (!*link) co_return unknown_link();
        const std::string wanted = hmac_sha256_hex(*secret, signed_text(**link));
        if (!same_secret(wanted, std::string_view{token}.substr(dot + 1))) co_return unknown_link();
        co_return std::move(**link);
    }

    Shared& s_;
    std::string key_file_, key_;
    std::map<std::string, Binder> binders_;
    std::map<std::string, std::function<void(const Approval&)>> listeners_;
};

}  // namespace

std::unique_ptr<Approvals> create_approvals(Shared& shared, std::string state_dir) {
    return std::make_unique<ApprovalsImpl>(shared, std::move(state_dir));
}

}  // namespace heal
