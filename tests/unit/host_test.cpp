#include "host/artifact.hpp"
#include "host/performer.hpp"
#include "runner_test_world.hpp"

#include <heal/abi.h>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

using namespace heal;
using namespace heal::testing;
using namespace std::chrono_literals;

namespace {

class Quiet final : public Interrupt {
public:
    int fd() const override { return -1; }
    bool stopped() override { return stop; }
    bool stop = false;
};

// One loopback server that answers each connection with fixed bytes.
class Server {
public:
    explicit Server(std::string answer) : answer_(std::move(answer)) {
        fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof to;
        if (::bind(fd_, reinterpret_cast<sockaddr*>(&to), size) != 0 || ::listen(fd_, 8) != 0)
            throw std::runtime_error("no server");
        ::getsockname(fd_, reinterpret_cast<sockaddr*>(&to), &size);
        port = ntohs(to.sin_port);
        thread_ = std::thread([this] {
            for (;;) {
                const int one = ::accept(fd_, nullptr, nullptr);
                if (one < 0) return;
                char buffer[4096];
                const auto n = ::recv(one, buffer, sizeof buffer, 0);
                if (n > 0) asked.assign(buffer, static_cast<std::size_t>(n));
                ::send(one, answer_.data(), answer_.size(), MSG_NOSIGNAL);
                while (n > 0 && ::recv(one, buffer, sizeof buffer, 0) > 0) {
                }
                ::close(one);
            }
        });
    }
    ~Server() {
        ::shutdown(fd_, SHUT_RDWR);
        thread_.join();
        ::close(fd_);
    }
    std::string address() const { return "127.0.0.1:" + std::to_string(port); }
    int port = 0;
    std::string asked;

private:
    std::string answer_;
    int fd_;
    std::thread thread_;
};

/// As in heal-host: set before the first effect.
const auto ignores_pipes = ::signal(SIGPIPE, SIG_IGN);

class Effects : public ::testing::Test {
protected:
    Performer::Performed perform(
        const std::string& kind, json::object parameters, const std::string& phase = "execute"
    ) {
        PerformRequest rq;
        rq.phase = phase;
        rq.strategy = "test";
        rq.attempt = "a1";
        rq.kind = kind;
        rq.parameters = std::move(parameters);
        rq.dry_run = dry_run;
        rq.remaining = remaining;
        rq.grants = grants.empty() ? Grants::all() : Grants{grants};
        return performer.perform(
            rq,
            [&](const Effect& e) -> result<void> {
                last = e;
                return {};
            },
            quiet
        );
    }
    json::object done(const std::string& kind, json::object parameters) {
        const auto r = perform(kind, std::move(parameters));
        EXPECT_TRUE(r.result.ok) << kind << ": " << r.result.error;
        return r.result.result;
    }
    std::string refused(const std::string& kind, json::object parameters) {
        const auto r = perform(kind, std::move(parameters));
        EXPECT_FALSE(r.result.ok) << kind;
        return r.result.error;
    }
    json::object undo() {
        return perform(std::string{string_at(last.undo, "kind")}, object_at(last.undo, "parameters"), "undo")
            .result.result;
    }

    Folder folder;
    SystemClock clock;
    Performer performer{folder / "state", clock};
    Quiet quiet;
    Effect last;
    std::vector<std::string> grants;
    bool dry_run = false;
    std::chrono::milliseconds remaining{10'000};
};

json::array words(std::initializer_list<const char*> list) {
    json::array out;
    for (const char* one : list) out.emplace_back(one);
    return out;
}

}  // namespace

TEST_F(Effects, ExecGivesOutputAndExitCodeAndInheritsNothing) {
    const auto r = done("exec", {{"argv", words({"/bin/sh", "-c", "echo out; echo err >&2; exit 3"})}});
    EXPECT_EQ(int_at(r, "exit_code"), 3);
    EXPECT_EQ(string_at(r, "output"), "out\n");
    EXPECT_EQ(string_at(r, "error_output"), "err\n");
    ::setenv("HEAL_SECRET", "x", 1);
    EXPECT_EQ(
        string_at(
            done("exec", {{"argv", words({"/usr/bin/env"})}, {"env", json::object{{"A", "b"}}}}), "output"
        )
            .find("HEAL_SECRET"),
        std::string_view::npos
    );
    EXPECT_EQ(string_at(last.parameters.at("env").as_object(), "A"), "***") << "values may be secrets";
    EXPECT_EQ(string_at(done("exec", {{"argv", words({"/bin/pwd"})}, {"cwd", "/usr"}}), "output"), "/usr\n");
    EXPECT_EQ(int_at(done("exec", {{"argv", words({"/bin/sh", "-c", "kill -9 $$"})}}), "signal"), 9);
}

TEST_F(Effects, ExecStartsFromDefaultSignalsAndTheUsualScheduler) {
    // What is ignored, the mask and the policy pass through exec(2).
    const auto r = done(
        "exec",
        {{"argv",
          words({"/bin/grep", "-hsE", "SigBlk|SigIgn|^policy", "/proc/self/status", "/proc/self/sched"})}}
    );
    const auto status = string_at(r, "output");
    for (const char* word : {"SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"})
        EXPECT_NE(status.find(word), std::string::npos) << word << " in " << status;
    if (status.find("policy") != std::string::npos) {
        EXPECT_EQ(status.substr(status.find_last_of(" :")), " 0\n") << status;
    }
    EXPECT_EQ(::sched_getscheduler(0), SCHED_OTHER);
}

TEST_F(Effects, ExecRunsAsAnotherUserWithItsGroupsOnly) {
    if (::geteuid() != 0) {
        EXPECT_NE(
            refused("exec", {{"argv", words({"/usr/bin/id"})}, {"user", "daemon"}}).find("must run as root"),
            std::string::npos
        );
        return;
    }
    const auto r = done("exec", {{"argv", words({"/usr/bin/id"})}, {"user", "daemon"}});
    EXPECT_EQ(string_at(r, "output"), "uid=1(daemon) gid=1(daemon) groups=1(daemon)\n");
    EXPECT_EQ(::geteuid(), 0U);
    EXPECT_NE(
        refused("exec", {{"argv", words({"/usr/bin/id"})}, {"user", "no-such-user"}}).find("no user"),
        std::string::npos
    );
}

TEST_F(Effects, ExecNeverMeansAShellAndNeedsAnAbsolutePath) {
    EXPECT_EQ(
        string_at(
            done("exec", {{"argv", words({"/bin/echo", "$(id)", "; touch /tmp/x", "`id`"})}}), "output"
        ),
        "$(id) ; touch /tmp/x `id`\n"
    );
    EXPECT_NE(refused("exec", {{"argv", words({"sh"})}}).find("absolute path"), std::string::npos);
    EXPECT_NE(refused("exec", {{"argv", "ls"}}).find("must be an array"), std::string::npos);
    EXPECT_NE(
        refused(
            "exec", {{"argv", words({"/bin/true"})}, {"shell", true}}
        ).find("exec.shell: is not a parameter"),
        std::string::npos
    );
    EXPECT_NE(
        refused("exec", {{"argv", words({"/no/such/program"})}}).find("No such file"), std::string::npos
    );
    EXPECT_NE(refused("fly", {}).find("there is no effect 'fly'; known are"), std::string::npos);
}

TEST_F(Effects, ExecIsKilledWithAllItStartedWhenItsTimeIsOver) {
    const std::string pid_file = folder / "pid";
    const auto r = done(
        "exec",
        {{"argv", json::array{"/bin/sh", "-c", "setsid sleep 600 & echo $! > " + pid_file + "; sleep 600"}},
         {"timeout_ms", 200}}
    );
    EXPECT_TRUE(bool_at(r, "timed_out"));
    const std::int64_t pid = std::stoll(read(pid_file));
    // Without a subreaper (this test is none) only its session is ours to end; the detached one is ended
    // here.
    ::kill(static_cast<pid_t>(pid), SIGKILL);
    remaining = 100ms;
    const auto late = perform("exec", {{"argv", words({"/bin/sleep", "600"})}});
    EXPECT_EQ(late.code, errc::cancelled);
}

TEST_F(Effects, ExecOutputIsBounded) {
    const auto r =
        done("exec", {{"argv", words({"/bin/sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x"})}});
    EXPECT_LE(string_at(r, "output").size(), 32U << 10U);
    EXPECT_GT(string_at(r, "output").size(), 20'000U);
}

TEST_F(Effects, StartProcessOutlivesItsCallerAndIsStoppedByItsUndo) {
    const auto r = done(
        "start_process",
        {{"argv", words({"/bin/sleep", "600"})},
         {"pid_file", folder / "p.pid"},
         {"log_file", folder / "p.log"}}
    );
    const std::int64_t pid = int_at(r, "pid");
    EXPECT_TRUE(bool_at(r, "alive"));
    EXPECT_EQ(read(folder / "p.pid"), std::to_string(pid) + "\n");
    EXPECT_EQ(::getsid(static_cast<pid_t>(pid)), pid) << "a session of its own";
    const Effect started = last;
    EXPECT_TRUE(bool_at(done("process_info", {{"pid", pid}}), "alive"));
    last = started;
    EXPECT_EQ(int_at(undo(), "stopped"), 1);
    EXPECT_FALSE(bool_at(done("process_info", {{"pid", pid}}), "alive"));
    last = started;
    EXPECT_EQ(int_at(undo(), "stopped"), 0) << "twice does no more";
}

TEST_F(Effects, SignalNeverHitsAnotherProcessThanTheOneMeant) {
    const auto started =
        done("start_process", {{"argv", words({"/bin/sleep", "600"})}, {"pid_file", folder / "p.pid"}});
    const std::int64_t pid = int_at(started, "pid"), start_time = int_at(started, "start_time");
    EXPECT_NE(
        refused("signal", {{"pid", pid}, {"start_time", start_time + 1}}).find("is another one now"),
        std::string::npos
    );
    EXPECT_NE(
        refused("signal", {{"pid", pid}, {"command", "/usr/sbin/nginx"}}).find("runs '/bin/sleep'"),
        std::string::npos
    );
    EXPECT_NE(refused("signal", {{"signal", "TERM"}}).find("needs pid or pid_file"), std::string::npos);
    EXPECT_NE(refused("signal", {{"pid", 1}}).find("must be an integer from 2"), std::string::npos);
    EXPECT_NE(
        refused("signal", {{"pid", pid}, {"signal", "SEGV"}}).find("must be one of TERM"), std::string::npos
    );
    grants = {"signal:command:/usr/sbin/nginx"};
    EXPECT_NE(refused("signal", {{"pid", pid}}).find("not granted"), std::string::npos);
    grants = {"signal:pidfile:" + (folder / "p.pid")};
    const auto r = done(
        "signal",
        {{"pid_file", folder / "p.pid"},
         {"start_time", start_time},
         {"kill_after_ms", 2000},
         {"wait_ms", 2000}}
    );
    EXPECT_TRUE(bool_at(r, "ended"));
    EXPECT_FALSE(bool_at(r, "killed"));
    EXPECT_TRUE(bool_at(
        done("signal", {{"pid_file", folder / "p.pid"}, {"start_time", start_time}, {"wait_ms", 10}}), "ended"
    )) << "it is gone already";
}

TEST_F(Effects, SignalKillsWhoIgnoresTheFirst) {
    const auto started = done(
        "start_process", {{"argv", words({"/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"})}}
    );
    std::this_thread::sleep_for(100ms);  // until the trap is set
    const auto r =
        done("signal", {{"pid", int_at(started, "pid")}, {"kill_after_ms", 100}, {"wait_ms", 2000}});
    EXPECT_TRUE(bool_at(r, "killed") && bool_at(r, "ended"));
}

TEST_F(Effects, FilesAreWrittenWholeAndComeBackWithModeOnUndo) {
    const std::string path = folder / "app.conf";
    write(path, "old", 0600);
    done("write_file", {{"path", path}, {"content", "new"}});
    EXPECT_EQ(read(path), "new");
    EXPECT_EQ(fs::status(path).permissions(), static_cast<fs::perms>(0600)) << "the mode is kept";
    EXPECT_TRUE(last.undoable);
    EXPECT_TRUE(bool_at(undo(), "restored"));
    EXPECT_EQ(read(path), "old");
    done("write_file", {{"path", folder / "fresh"}, {"content", "x"}, {"mode", 0640}});
    undo();
    EXPECT_FALSE(fs::exists(folder / "fresh"));
    done("remove_file", {{"path", path}});
    EXPECT_FALSE(fs::exists(path));
    undo();
    EXPECT_EQ(read(path), "old");
    done("move_file", {{"from", path}, {"to", folder / "moved"}});
    undo();
    EXPECT_EQ(read(path), "old");
    write(folder / "good.conf", "good", 0644);
    done("copy_file", {{"from", folder / "good.conf"}, {"to", path}});
    EXPECT_EQ(read(path), "good");
    undo();
    EXPECT_EQ(read(path), "old");
    EXPECT_EQ(fs::status(folder / "state/backups").permissions(), static_cast<fs::perms>(0700));
}

TEST_F(Effects, UndoDoesNotThrowAwayWhatSomebodyElseWroteSince) {
    const std::string path = folder / "app.conf";
    write(path, "old");
    done("write_file", {{"path", path}, {"content", "new"}});
    write(path, "by hand");
    const auto r = perform("restore_file", object_at(last.undo, "parameters"), "undo");
    EXPECT_EQ(r.code, errc::conflict);
    EXPECT_NE(r.result.error.find("changed by someone else"), std::string::npos);
    EXPECT_EQ(read(path), "by hand");
}

TEST_F(Effects, UndoEffectsAreForUndoOnly) {
    for (const char* kind : {"restore_file", "stop_started", "unmove_file", "restore_link"}) {
        EXPECT_NE(refused(kind, {}).find("there is no effect"), std::string::npos) << kind;
    }
}

TEST_F(Effects, LinksDoNotLeadOutOfWhatIsGranted) {
    fs::create_directory(folder / "in");
    fs::create_directory(folder / "out");
    write(folder / "out/secret", "secret");
    fs::create_symlink(folder / "out/secret", folder / "in/link");
    fs::create_symlink(folder / "out", folder / "in/folder");
    fs::create_symlink(folder / "in", folder / "alias");
    grants = {"file:" + (folder / "in/**")};
    EXPECT_NE(refused("read_file", {{"path", folder / "in/link"}}).find("is a link to"), std::string::npos);
    EXPECT_NE(
        refused("write_file", {{"path", folder / "in/link"}, {"content", "x"}}).find("is a link to"),
        std::string::npos
    );
    EXPECT_NE(
        refused("read_file", {{"path", folder / "in/folder/secret"}}).find("leads to"), std::string::npos
    );
    EXPECT_NE(refused("list_files", {{"path", folder / "in/folder"}}).find("leads to"), std::string::npos);
    EXPECT_NE(
        refused("read_file", {{"path", folder / "in/../out/secret"}}).find("absolute path without"),
        std::string::npos
    );
    EXPECT_EQ(read(folder / "out/secret"), "secret");
    grants = {"file:" + (folder / "alias/**")};
    done(
        "write_file",
        {{"path", folder / "alias/x"}, {"content", "a link in the grant itself is the operator's"}}
    );
    grants = {"read:" + (folder / "out/*")};
    EXPECT_EQ(string_at(done("read_file", {{"path", folder / "out/secret"}}), "content"), "secret");
    EXPECT_NE(
        refused("write_file", {{"path", folder / "out/secret"}, {"content", "x"}}).find("file:"),
        std::string::npos
    );
}

TEST_F(Effects, ListsFilesAndTellsAMissingOne) {
    fs::create_directory(folder / "d");
    write(folder / "d/b", "12");
    write(folder / "d/a", "1");
    fs::create_directory(folder / "d/sub");
    const json::array files = array_at(done("list_files", {{"path", folder / "d"}}), "files");
    ASSERT_EQ(files.size(), 3U);
    EXPECT_EQ(string_at(files[0].as_object(), "name"), "a");
    EXPECT_EQ(int_at(files[1].as_object(), "bytes"), 2);
    EXPECT_EQ(string_at(files[2].as_object(), "type"), "folder");
    EXPECT_NE(refused("read_file", {{"path", folder / "none"}}).find("does not exist"), std::string::npos);
    EXPECT_FALSE(bool_at(done("read_file", {{"path", folder / "none"}, {"missing_ok", true}}), "exists"));
}

TEST_F(Effects, HttpGivesStatusHeadersAndABoundedBody) {
    Server server{"HTTP/1.1 503 No\r\nX-A: b\r\nContent-Length: 100000\r\n\r\n" + std::string(100'000, 'y')};
    const auto r = done("http", {{"url", "http://" + server.address() + "/health?token=secret"}});
    EXPECT_EQ(int_at(r, "status"), 503);
    EXPECT_EQ(string_at(object_at(r, "headers"), "x-a"), "b");
    EXPECT_EQ(string_at(r, "body").size(), 32U << 10U);
    EXPECT_FALSE(last.changes_world);
    EXPECT_EQ(last.summary.find("secret"), std::string::npos);
    grants = {"net:127.0.0.1:1"};
    EXPECT_NE(
        refused("http", {{"url", "http://" + server.address() + "/"}}).find("net:127.0.0.1"),
        std::string::npos
    );
    grants.clear();
    EXPECT_NE(
        refused("http", {{"url", "file:///etc/passwd"}}).find("http:// or https://"), std::string::npos
    );
    dry_run = true;
    server.asked.clear();
    EXPECT_EQ(
        int_at(done("http", {{"url", "http://" + server.address()}, {"method", "POST"}}), "status"), 200
    );
    EXPECT_EQ(server.asked, "");
}

TEST_F(Effects, RedisSpeaksRespAndKnowsReadsFromWrites) {
    Server server{"+PONG\r\n:42\r\n$5\r\nhello\r\n$-1\r\n*2\r\n$1\r\na\r\n:7\r\n-ERR wrong\r\n"};
    const json::array commands{
        words({"PING"}),
        words({"DBSIZE"}),
        words({"GET", "a"}),
        words({"GET", "b"}),
        words({"SCAN", "0"}),
        words({"INFO"})};
    const json::array replies = array_at(
        done("redis", {{"address", server.address()}, {"commands", commands}, {"timeout_ms", 2000}}),
        "replies"
    );
    EXPECT_EQ(json::serialize(replies), R"(["PONG",42,"hello",null,["a",7],{"error":"ERR wrong"}])");
    EXPECT_EQ(server.asked.substr(0, 14), "*1\r\n$4\r\nPING\r\n");
    EXPECT_FALSE(last.changes_world);
    dry_run = true;
    done(
        "redis",
        {{"address", server.address()}, {"commands", json::array{words({"FLUSHDB"})}}, {"password", "secret"}}
    );
    EXPECT_TRUE(last.changes_world);
    EXPECT_EQ(string_at(last.parameters, "password"), "***");
}

TEST_F(Effects, MemcachedTakesCommandLinesOnly) {
    Server server{"VALUE a 0 3\r\nxyz\r\nEND\r\nOK\r\n"};
    const json::array replies = array_at(
        done("memcached", {{"address", server.address()}, {"commands", words({"get a", "flush_all"})}}),
        "replies"
    );
    EXPECT_EQ(json::serialize(replies), R"(["VALUE a 0 3\nxyz\nEND","OK"])");
    for (const char* bad : {"set a 0 0 1", "get a\r\nflush_all", "shutdown"}) {
        EXPECT_NE(
            refused(
                "memcached", {{"address", server.address()}, {"commands", words({bad})}}
            ).find("command lines"),
            std::string::npos
        ) << bad;
    }
}

TEST_F(Effects, TcpCheckTellsOpenFromClosed) {
    std::string closed;
    {
        Server server{""};
        EXPECT_TRUE(bool_at(done("tcp_check", {{"address", server.address()}}), "open"));
        closed = server.address();
    }
    EXPECT_FALSE(bool_at(done("tcp_check", {{"address", closed}}), "open"));
    EXPECT_NE(refused("tcp_check", {{"address", "nowhere"}}).find("host:port"), std::string::npos);
}

TEST_F(Effects, ValuesAreKeptPerStrategy) {
    EXPECT_FALSE(bool_at(done("state_get", {{"key", "k"}}), "exists"));
    done("state_put", {{"key", "k"}, {"value", "v"}});
    EXPECT_EQ(string_at(done("state_get", {{"key", "k"}}), "value"), "v");
    done("state_put", {{"key", "k"}, {"value", nullptr}});
    EXPECT_FALSE(bool_at(done("state_get", {{"key", "k"}}), "exists"));
    for (const char* bad : {"../x", "a/b", "", ".hidden"})
        EXPECT_NE(
            refused("state_put", {{"key", bad}, {"value", "v"}}).find("state_put.key"), std::string::npos
        ) << bad;
}

TEST_F(Effects, ADryRunChecksEverythingAndChangesNothing) {
    dry_run = true;
    write(folder / "f", "x");
    done("write_file", {{"path", folder / "f"}, {"content", "y"}});
    done("remove_file", {{"path", folder / "f"}});
    done("exec", {{"argv", words({"/bin/rm", (folder / "f").c_str()})}});
    done("start_process", {{"argv", words({"/bin/sleep", "600"})}, {"pid_file", folder / "p"}});
    EXPECT_EQ(read(folder / "f"), "x");
    EXPECT_FALSE(fs::exists(folder / "p"));
    EXPECT_FALSE(fs::exists(folder / "state/backups"));
    grants = {"exec:/bin/true"};
    EXPECT_NE(refused("exec", {{"argv", words({"/bin/false"})}}).find("not granted"), std::string::npos)
        << "what would be denied is denied here, too";
}

TEST_F(Effects, AnInterruptEndsASleep) {
    quiet.stop = true;
    EXPECT_EQ(perform("sleep", {{"ms", 60'000}}).code, errc::cancelled);
}

// ---- Scripts ----

namespace {

class Answers final : public CallContext {
public:
    bool is_cancelled() override { return false; }
    std::chrono::milliseconds remaining() override { return left; }
    EffectAnswer perform(std::string_view kind, json::object parameters) override {
        asked.push_back(std::string{kind} + " " + json::serialize(parameters));
        return {HEAL_OK, "", json::object{{"exit_code", 0}, {"output", "out"}}};
    }
    void log(Level level, std::string_view message, json::object) override {
        asked.push_back(std::string{to_string(level)} + " " + std::string{message});
    }
    std::vector<std::string> asked;
    std::chrono::milliseconds left{2'000};
};

CallReply ran(const std::string& body, Answers& context) {
    auto script = load_script(
        "return { name = 's', execute = function(request, call) " + body + " end }",
        "s.lua",
        {{"helper", "return { twice = function(n) return 2 * n end }"}},
        ScriptLimits{}
    );
    if (!script) return {HEAL_FAILED, 0, script.error().text, {}, false, false};
    return (*script)->call(
        CallFunction::execute,
        "s",
        json::object{
            {"incident", json::object{{"n", 21}, {"list", json::array{1, 2}}}}, {"config", json::object{}}},
        context
    );
}

}  // namespace

TEST(Script, SpeaksToItsContextInBothSpellings) {
    Answers context;
    const CallReply r = ran(
        "local r = call:exec{argv = {'/bin/x', 'a'}}; call.exec{'/bin/y'}; call.info('hi'); call.warn('ho'); "
        "call:log('error', 'x'); call.progress(0.5, 'half'); call.state_put('k', 'v'); call.sleep(5);"
        "return { outcome = 'succeeded', text = r.output, detail = { ok = r.ok } }",
        context
    );
    EXPECT_EQ(r.status, HEAL_OK) << r.text;
    EXPECT_EQ(r.text, "out");
    EXPECT_TRUE(bool_at(r.detail, "ok"));
    EXPECT_EQ(
        context.asked,
        (std::vector<std::string>{
            R"(exec {"argv":["/bin/x","a"]})",
            R"(exec {"argv":["/bin/y"]})",
            "info hi",
            "warn ho",
            "error x",
            R"(progress {"fraction":5E-1,"message":"half"})",
            R"(state_put {"key":"k","value":"v"})",
            R"(sleep {"ms":5})"})
    );
}

TEST(Script, SeesTheRequestAndItsLibraries) {
    Answers context;
    const CallReply r =
        ran("return { outcome = 'succeeded', text = tostring(require('helper').twice(request.incident.n)) .. "
            "#request.incident.list, detail = json.decode(json.encode{a = {1, 2}, b = json.array{}}) }",
            context);
    EXPECT_EQ(r.text, "422");
    EXPECT_EQ(json::serialize(r.detail.at("b")), "[]");
}

TEST(Script, NamesScriptLineAndCallInItsErrors) {
    Answers context;
    EXPECT_NE(
        ran("\n\n local x = nil; return x.y", context)
            .text.find("s.lua:3: attempt to index a nil value (local 'x')"),
        std::string::npos
    );
    EXPECT_NE(
        ran("\n return 'nonsense'", context).text.find("execute must return { outcome ="), std::string::npos
    );
}

TEST(Script, IsStoppedAtItsDeadlineWhateverItCatches) {
    for (const char* body :
         {"while true do end",
          "while true do pcall(error) end",
          "local co = coroutine.wrap(function() while true do pcall(error) end end); co()"}) {
        Answers context;
        context.left = 50ms;
        const CallReply r = ran(body, context);
        EXPECT_TRUE(r.out_of_time && r.spent) << body;
        EXPECT_EQ(r.status, HEAL_CANCELLED);
    }
}
