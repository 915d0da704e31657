#include "vcs/repository.hpp"
#include "vcs_world.hpp"

#include <thread>

namespace heal::vcs {
namespace {

using namespace std::chrono_literals;
using ::testing::Test;

class RepositoryTest : public VcsTest {
protected:
    void SetUp() override {
        sh(folder,
           "git init -q --bare -b main remote.git; git init -q -b main work; cd work; git remote add origin "
           "../remote.git");
        work = folder + "/work", remote = folder + "/remote.git";
        first = commit_file("src/a.cpp", "int one() {\n    return 1;\n}\n", "first");
        place = {"shop", remote, "main", ""};
    }
    std::string commit_file(const std::string& path, const std::string& content, const std::string& message) {
        write(work + "/" + path, content);
        return sh(
            work,
            "git add -A; git commit -qm '" + message + "'; git push -q origin HEAD:main; git rev-parse HEAD"
        );
    }
    std::unique_ptr<Repository> open(std::chrono::milliseconds deadline = 30s) {
        auto r = open_repository(place, folder + "/state", deadline, cancel);
        EXPECT_TRUE(r) << (r ? "" : r.error().text);
        return r ? std::move(*r) : nullptr;
    }
    result<std::string> commit(Repository& r, const Commit& what) const {
        auto staged = r.stage(tree());
        if (!staged) return staged.error();
        return r.commit(*staged, what);
    }
    std::string tree() const { return folder + "/state/trial/tree"; }
    static constexpr Time at{1'790'000'000'000'000};
    static constexpr const char* author = "heald <heald@test>";

    std::string work, remote, first;
    RepositoryPlace place;
};

TEST_F(RepositoryTest, ReadsWhatIsAtACommit) {
    sh(work, "ln -s /etc/passwd link; printf '#!/bin/sh\\n' > run.sh; chmod +x run.sh");
    const auto second = commit_file("big.bin", std::string(2U << 20U, 'x'), "second");
    const auto r = open();
    EXPECT_EQ(*r->files(second), (std::vector<std::string>{"big.bin", "run.sh", "src/a.cpp"}));
    EXPECT_EQ(*r->show(first, "src/a.cpp"), "int one() {\n    return 1;\n}\n");
    EXPECT_EQ(r->show(first, "src/b.cpp").error().code, errc::not_found);
    EXPECT_EQ(r->show(first, "src").error().code, errc::not_found);
    EXPECT_EQ(r->show(first, "../../etc/passwd").error().code, errc::not_found);
    EXPECT_EQ(r->show(second, "big.bin").error().code, errc::invalid_input);
    EXPECT_EQ(r->show(second, "link").error().code, errc::invalid_input);
    EXPECT_EQ(r->show("--output=/tmp/x", "a").error().code, errc::invalid_input);
    EXPECT_EQ(*r->mode(second, "link"), 0120000U);
    EXPECT_EQ(*r->mode(second, "run.sh"), 0100755U);
    EXPECT_EQ(*r->mode(second, "src/a.cpp"), 0100644U);
    EXPECT_EQ(*r->mode(second, "none"), 0U);
    EXPECT_EQ(*r->mode(second, "src"), 0040000U);
}

TEST_F(RepositoryTest, ReadsTheSameOfManyFilesAndOfFew) {
    // More than a listing that is kept; what is read before and after says the same.
    sh(work,
       "mkdir many; cd many; for i in $(seq 9000); do : > "
       "a-name-of-some-length-as-they-are-in-real-trees-$i; done");
    const auto second = commit_file("src/b.cpp", "int b;\n", "many");
    const auto r = open();
    for (int round = 0; round < 2; ++round) {
        EXPECT_EQ(r->show(first, "src/b.cpp").error().code, errc::not_found);
        EXPECT_EQ(*r->show(second, "src/b.cpp"), "int b;\n");
        EXPECT_EQ(*r->show(second, "src/a.cpp"), "int one() {\n    return 1;\n}\n");
        EXPECT_EQ(*r->mode(second, "many"), 0040000U);
        EXPECT_EQ(r->files(second)->size(), 9002U);
        EXPECT_EQ(r->files(first)->size(), 1U);
    }
}

TEST_F(RepositoryTest, FindsBranchTagReleaseAndShortId) {
    sh(work,
       "git tag v1.2; git tag release-1.3; git tag -a -m x 2.0; git push -q origin --tags; git push -q "
       "origin HEAD:feature/x");
    const auto r = open();
    for (const char* name : {"main", "feature/x", "v1.2", "1.2", "1.3", "2.0"})
        EXPECT_EQ(*r->resolve(name), first) << name;
    EXPECT_EQ(*r->resolve(first), first);
    EXPECT_EQ(*r->resolve(first.substr(0, 9)), first);
    for (const char* name : {"9.9", "-x", "--all", "main..v1.2", "HEAD^", "main@{1}", "", "$(id)"})
        EXPECT_EQ(r->resolve(name).error().code, errc::not_found) << name;
}

TEST_F(RepositoryTest, FetchesAndForgetsWhatIsGone) {
    sh(work, "git push -q origin HEAD:old");
    const auto r = open();
    const auto second = commit_file("b", "b", "second");
    sh(work, "git push -q origin :old");
    EXPECT_EQ(*r->resolve("main"), first);
    ASSERT_TRUE(r->fetch());
    EXPECT_EQ(*r->resolve("main"), second);
    EXPECT_EQ(r->resolve("old").error().code, errc::not_found);
    // History that was rewritten is followed.
    sh(work, "git reset -q --hard " + first + "; git push -qf origin HEAD:main");
    ASSERT_TRUE(r->fetch());
    EXPECT_EQ(*r->resolve("main"), first);
    EXPECT_TRUE(*r->contains(second, first));
    EXPECT_FALSE(*r->contains(first, second));
}

TEST_F(RepositoryTest, TheSameChangeIsTheSameCommit) {
    const auto r = open();
    std::string ids[2];
    for (auto& id : ids) {
        ASSERT_TRUE(r->add_worktree(tree(), first));
        EXPECT_EQ(commit(*r, {"fix: two", author, at}).error().code, errc::conflict);
        write(tree() + "/src/a.cpp", "int one() {\n    return 2;\n}\n");
        write(tree() + "/src/new.cpp", "new\n");
        const auto staged = r->stage(tree());
        ASSERT_TRUE(staged);
        EXPECT_EQ(staged->head, first);
        EXPECT_NE(staged->patch.find("-    return 1;\n+    return 2;\n"), std::string::npos);
        EXPECT_NE(staged->patch.find("+++ b/src/new.cpp"), std::string::npos);
        auto made = commit(*r, {"fix: two", author, at});
        ASSERT_TRUE(made) << made.error().text;
        id = *made;
        EXPECT_EQ(*r->diff(first, id), staged->patch);
    }
    EXPECT_EQ(ids[0], ids[1]);
    ASSERT_TRUE(r->remove_worktree(tree()));
    EXPECT_FALSE(std::filesystem::exists(tree()));
    EXPECT_TRUE(
        std::filesystem::is_empty(folder + "/state/shop.git/worktrees") ||
        !std::filesystem::exists(folder + "/state/shop.git/worktrees")
    );
}

TEST_F(RepositoryTest, PushesOnceAndOnlyFromWhatItExpects) {
    const auto r = open();
    ASSERT_TRUE(r->add_worktree(tree(), first));
    write(tree() + "/x", "x");
    const auto fix = *commit(*r, {"fix", author, at});
    EXPECT_EQ(*r->remote_head("heald/fix"), "");
    ASSERT_TRUE(r->push("heald/fix", fix, ""));
    ASSERT_TRUE(r->push("heald/fix", fix, "")) << "again is the same";
    EXPECT_EQ(*r->remote_head("heald/fix"), fix);
    EXPECT_EQ(r->push("heald/fix", first, "").error().code, errc::conflict);
    EXPECT_EQ(r->push("main", fix, fix).error().code, errc::conflict);
    ASSERT_TRUE(r->push("main", fix, first));
    EXPECT_EQ(sh(remote, "git rev-parse main"), fix);
    EXPECT_EQ(r->remove_branch("heald/fix", first).error().code, errc::conflict);
    ASSERT_TRUE(r->remove_branch("heald/fix", fix));
    ASSERT_TRUE(r->remove_branch("heald/fix", fix));
    EXPECT_EQ(*r->remote_head("heald/fix"), "");
    for (const char* branch : {"-x", "--mirror", "a..b", "a b", "x.lock", ""})
        EXPECT_EQ(r->push(branch, fix, "").error().code, errc::invalid_input) << branch;
}

TEST_F(RepositoryTest, RevertsWithoutTouchingWhatCameAfter) {
    const auto bad = commit_file("src/a.cpp", "int one() {\n    return 7;\n}\n", "bad");
    const auto later = commit_file("other", "other\n", "later");
    const auto r = open();
    const auto back = r->revert(bad, later, "revert: bad", author, at);
    ASSERT_TRUE(back) << back.error().text;
    EXPECT_EQ(*r->show(*back, "src/a.cpp"), "int one() {\n    return 1;\n}\n");
    EXPECT_EQ(*r->show(*back, "other"), "other\n");
    EXPECT_TRUE(*r->contains(*back, later));
    EXPECT_EQ(r->revert(bad, *back, "again", author, at).value(), *back) << "it is undone already";
    const auto built_on = commit_file("src/a.cpp", "int one() {\n    return 8;\n}\n", "on top");
    ASSERT_TRUE(r->fetch());
    const auto conflict = r->revert(bad, built_on, "revert", author, at);
    ASSERT_FALSE(conflict);
    EXPECT_EQ(conflict.error().code, errc::conflict);
    EXPECT_NE(conflict.error().text.find("src/a.cpp"), std::string::npos) << conflict.error().text;
    EXPECT_EQ(r->revert(first, first, "root", author, at).error().code, errc::conflict);
}

TEST_F(RepositoryTest, MergesWhatGoesTogether) {
    const auto r = open();
    ASSERT_TRUE(r->add_worktree(tree(), first));
    write(tree() + "/fix", "fix\n");
    const auto fix = *commit(*r, {"fix", author, at});
    EXPECT_EQ(*r->merge(fix, first, "merge", author, at), fix);
    const auto moved = commit_file("other", "other\n", "moved");
    ASSERT_TRUE(r->fetch());
    const auto merged = r->merge(fix, moved, "merge", author, at);
    ASSERT_TRUE(merged) << merged.error().text;
    EXPECT_TRUE(*r->contains(*merged, fix) && *r->contains(*merged, moved));
    EXPECT_EQ(*r->merge(fix, *merged, "merge", author, at), *merged);
    const auto clash = commit_file("fix", "another\n", "clash");
    ASSERT_TRUE(r->fetch());
    EXPECT_EQ(r->merge(fix, clash, "merge", author, at).error().code, errc::conflict);
}

TEST_F(RepositoryTest, TellsWhoChangedALine) {
    commit_file("src/a.cpp", "int one() {\n    return 2;\n}\n", "two is better");
    const auto r = open();
    const auto head = *r->resolve("main");
    const auto lines = r->blame(head, "src/a.cpp", 1, 3);
    ASSERT_TRUE(lines) << lines.error().text;
    ASSERT_EQ(lines->size(), 3U);
    EXPECT_EQ((*lines)[0].commit, first);
    EXPECT_EQ((*lines)[1].summary, "two is better");
    EXPECT_EQ((*lines)[1].author, "a");
    EXPECT_EQ((*lines)[1].first_line, 2U);
    EXPECT_EQ((*lines)[1].at, Time{1'700'000'000'000'000});
    EXPECT_EQ((*lines)[2].commit, first);
    EXPECT_FALSE(r->blame(head, "none", 1, 1));
}

TEST_F(RepositoryTest, HealsWhatAKilledGitLeft) {
    {
        const auto r = open();
        ASSERT_TRUE(r->add_worktree(tree(), first));
    }
    const std::string mirror = folder + "/state/shop.git";
    write(mirror + "/packed-refs.lock", "");
    write(mirror + "/refs/heads/main.lock", "");
    write(mirror + "/config.lock", "");
    write(mirror + "/worktrees/tree/index.lock", "");
    write(mirror + "/worktrees/half/gitdir", folder + "/state/half/.git\n");
    write(mirror + "/worktrees/half/locked", "initializing");
    write(folder + "/state/half/file", "x");
    write(mirror + ".part/HEAD", "x");
    commit_file("b", "b", "second");
    const auto r = open();
    ASSERT_TRUE(r->fetch());
    EXPECT_FALSE(std::filesystem::exists(folder + "/state/half"));
    ASSERT_TRUE(r->add_worktree(tree(), *r->resolve("main")));
    EXPECT_TRUE(std::filesystem::exists(tree() + "/b"));
    // A clone that was cut off is made anew.
    std::filesystem::remove(mirror + "/HEAD");
    const auto again = open();
    EXPECT_TRUE(again->resolve("main"));
    // Half of a worktree.
    std::filesystem::remove(tree() + "/.git");
    ASSERT_TRUE(again->add_worktree(tree(), first));
    ASSERT_TRUE(again->remove_worktree(tree()));
}

TEST_F(RepositoryTest, RunsNoCodeOfTheRepository) {
    const std::string proof = folder + "/ran";
    write(work + "/.gitattributes", "*.txt filter=evil diff=evil merge=evil\n");
    write(work + "/x.txt", "x\n");
    const auto evil = commit_file("y.txt", "y\n", "evil");
    for (const std::string& where : {remote + "/config", work + "/.git/config"}) {
        const std::string config = read(where);
        write(
            where,
            config + "[filter \"evil\"]\n\tsmudge = touch " + proof + "\n\tclean = touch " + proof +
                "\n[diff \"evil\"]\n\ttextconv = touch " + proof + "\n\tcommand = touch " + proof +
                "\n[merge \"evil\"]\n\tdriver = touch " + proof + "\n[core]\n\tfsmonitor = touch " + proof +
                "\n\tsshCommand = touch " + proof + "\n[uploadpack]\n\tpackObjectsHook = touch " + proof +
                "\n"
        );
    }
    for (const char* hook :
         {"pre-receive",
          "update",
          "post-receive",
          "post-checkout",
          "pre-push",
          "post-update",
          "reference-transaction"})
        for (const std::string& where : {remote + "/hooks/", work + "/.git/hooks/"}) {
            write(where + hook, "#!/bin/sh\ntouch " + proof + "\n");
            std::filesystem::permissions(where + hook, std::filesystem::perms::all);
        }
    const auto r = open();
    ASSERT_TRUE(r->add_worktree(tree(), evil));
    // What ran in the trial puts a repository of its own in the place of ours.
    std::filesystem::remove(tree() + "/.git");
    std::filesystem::copy(work + "/.git", tree() + "/.git", std::filesystem::copy_options::recursive);
    write(tree() + "/x.txt", "changed\n");
    const auto staged = r->stage(tree());
    ASSERT_TRUE(staged) << staged.error().text;
    EXPECT_NE(staged->patch.find("+changed"), std::string::npos);
    const auto fix = commit(*r, {"fix", author, at});
    ASSERT_TRUE(fix) << fix.error().text;
    EXPECT_EQ(*r->files(*fix), (std::vector<std::string>{".gitattributes", "src/a.cpp", "x.txt", "y.txt"}));
    ASSERT_TRUE(r->push("fix", *fix, ""));
    ASSERT_TRUE(r->blame(*fix, "x.txt", 1, 1));
    ASSERT_TRUE(r->merge(*fix, first, "m", author, at));
    EXPECT_FALSE(std::filesystem::exists(proof));
}

TEST_F(RepositoryTest, RefusesPlacesThatAreNone) {
    const auto code = [&](RepositoryPlace p) {
        return open_repository(p, folder + "/s", 5s, cancel).error().code;
    };
    for (const char* url :
         {"ext::sh -c 'touch /tmp/x'",
          "--upload-pack=touch /tmp/x",
          "relative/path",
          "ssh://-oProxyCommand=x/y",
          "git@-oProxyCommand=x:y",
          "fd::3",
          "-x",
          "",
          "https://",
          "file:///a\nb"})
        EXPECT_EQ(code({"shop", url, "main", ""}), errc::invalid_input) << url;
    for (const char* name : {"", "..", "../x", "a/b", "-x", ".hidden", "UP"})
        EXPECT_EQ(code({name, remote, "main", ""}), errc::invalid_input) << name;
    EXPECT_EQ(code({"shop", remote, "--all", ""}), errc::invalid_input);
    EXPECT_EQ(code({"shop", folder + "/none.git", "main", ""}), errc::unavailable);
}

TEST_F(RepositoryTest, KeepsTheTokenFromEveryText) {
    place.url = "https://user:hunter2@127.0.0.1:1/x.git";
    place.token = "glpat-secret";
    const auto r = open_repository(place, folder + "/s", 20s, cancel);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, errc::unavailable);
    EXPECT_EQ(r.error().text.find("hunter2"), std::string::npos) << r.error().text;
    EXPECT_EQ(r.error().text.find("secret"), std::string::npos) << r.error().text;
}

TEST_F(RepositoryTest, EndsWhenAskedTo) {
    const auto r = open();
    cancel = true;
    EXPECT_EQ(r->fetch().error().code, errc::cancelled);
    cancel = false;
    EXPECT_TRUE(r->fetch());
}

}  // namespace
}  // namespace heal::vcs
