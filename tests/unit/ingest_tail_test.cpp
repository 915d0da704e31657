#include "ingest/tail.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <string>

namespace heal {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

// A tail over a folder of its own, and everything it handed over. `restart` behaves like a daemon that was
// stopped: it goes on from the offsets of the batches that were taken, as the store would have them.
class TailTest : public ::testing::TestWithParam<bool> {
protected:
    void SetUp() override {
        char name[] = "/tmp/heal-tail-XXXXXX";
        ASSERT_NE(::mkdtemp(name), nullptr);
        folder_ = name;
        options_.use_inotify = GetParam();
        options_.poll = 50ms;
        options_.poll_without_inotify = 10ms;
        TailSource source;
        source.path = path();
        source.defaults.min_level = Level::warn;
        source.from_start = true;
        options_.sources = {source};
    }
    void TearDown() override {
        tail_.reset();
        fs::remove_all(folder_);
    }

    std::string path(const std::string& name = "x.log") const { return folder_ + "/" + name; }

    static std::string error(const std::string& id) {
        return "{\"level\":\"error\",\"msg\":\"broken " + id + "\",\"id\":\"" + id + "\"}\n";
    }

    void append(const std::string& text, const std::string& name = "x.log") {
        const int fd = ::open(path(name).c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        ASSERT_GE(fd, 0);
        ASSERT_EQ(::write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
        ::close(fd);
    }

    void start() {
        auto options = options_;
        {
            const std::lock_guard lock{mutex_};
            options.offsets.clear();
            for (const auto& [_, offset] : offsets_) {
                if (offset.inode != 0) options.offsets.push_back(offset);
            }
        }
        tail_ =
            create_tail(std::move(options), clock_, [this](Batch&& batch) { return take(std::move(batch)); });
        tail_->start();
    }

    bool take(Batch&& batch) {
        const std::lock_guard lock{mutex_};
        if (full_) return false;
        EXPECT_TRUE(batch.balanced());
        for (auto& delta : batch.deltas) {
            total_[delta.samples.back().message] += delta.count;
            for (const auto& sample : delta.samples) {
                messages_.push_back(sample.message);
                stacks_.push_back(sample.stack_trace);
            }
        }
        for (const auto& offset : batch.offsets) offsets_[offset.source] = offset;
        lines_ += batch.lines;
        records_ += batch.records;
        bytes_ += batch.bytes;
        below_ += batch.below_level;
        truncated_ += batch.truncated;
        changed_.notify_all();
        return true;
    }

    template <class Predicate>
    bool wait_for(Predicate&& predicate) {
        std::unique_lock lock{mutex_};
        return changed_.wait_for(lock, 10s, predicate);  // a guard against hanging
    }
    bool wait_records(std::uint64_t n) {
        return wait_for([&] { return records_ >= n; });
    }
    std::uint64_t records() {
        const std::lock_guard lock{mutex_};
        return records_;
    }
    bool has(const std::string& message) {
        const std::lock_guard lock{mutex_};
        return std::count(messages_.begin(), messages_.end(), message) == 1;
    }
    void set_full(bool full) {
        const std::lock_guard lock{mutex_};
        full_ = full;
    }
    template <class Predicate>
    bool eventually(Predicate&& predicate) {
        for (int i = 0; i < 1000; ++i, ::usleep(10'000)) {
            if (predicate()) return true;
        }
        return false;
    }

    SystemClock clock_;
    std::string folder_;
    TailOptions options_;
    std::unique_ptr<Tail> tail_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, std::uint64_t> total_;
    std::vector<std::string> messages_, stacks_;
    std::map<std::string, SourceOffset> offsets_;
    std::uint64_t lines_ = 0, records_ = 0, bytes_ = 0, below_ = 0, truncated_ = 0;
    bool full_ = false;
};

TEST_P(TailTest, ReadsWhatIsThereAndWhatComes) {
    append(error("a"));
    start();
    ASSERT_TRUE(wait_records(1));
    append(error("b") + error("c"));
    ASSERT_TRUE(wait_records(3));
    const auto offsets = tail_->stop();
    ASSERT_EQ(offsets.size(), 1U);
    EXPECT_EQ(offsets[0].source, "file:" + path());
    EXPECT_EQ(offsets[0].offset, fs::file_size(path()));
    EXPECT_EQ(offsets[0].offset, bytes_);
    EXPECT_EQ(tail_->stats().lines, 3U);
}

TEST_P(TailTest, StartsAtTheEndUnlessToldOtherwise) {
    options_.sources[0].from_start = false;
    append(error("old"));
    start();
    ASSERT_TRUE(wait_for([&] { return offsets_.contains("file:" + path()); }));
    append(error("new"));
    ASSERT_TRUE(wait_records(1));
    EXPECT_TRUE(has("broken new"));
    EXPECT_FALSE(has("broken old"));
}

TEST_P(TailTest, WaitsForAFileToAppearAndReadsItFromItsBeginning) {
    options_.sources[0].from_start = false;
    start();
    append(error("a"));
    ASSERT_TRUE(wait_records(1));
    fs::remove(path());
    append(error("b"));
    ASSERT_TRUE(wait_records(2));
    EXPECT_TRUE(has("broken b"));
}

TEST_P(TailTest, FollowsARenameAndReadsTheOldFileToItsEnd) {
    start();
    append(error("a"));
    ASSERT_TRUE(wait_records(1));
    const int old = ::open(path().c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    ASSERT_GE(old, 0);
    fs::rename(path(), path("x.log.1"));
    append(error("new"));
    const auto late = error("late");
    ASSERT_GT(::write(old, late.data(), late.size()), 0);  // the writer still holds the old one
    ASSERT_TRUE(wait_records(3));
    ASSERT_GT(::write(old, late.data(), late.size()), 0);
    ASSERT_TRUE(wait_records(4));
    ::close(old);
    EXPECT_TRUE(has("broken new"));
    tail_->stop();
    EXPECT_EQ(tail_->stats().gaps, 0U);
    EXPECT_EQ(records(), 4U);
}

TEST_P(TailTest, LosesNothingInManyRotations) {
    options_.rotated_keep = 10s;
    start();
    std::uint64_t n = 0;
    for (int rotation = 0; rotation < 3; ++rotation) {
        for (int i = 0; i < 2000; ++i) append(error(std::to_string(n++)));
        ASSERT_TRUE(wait_for([&] { return records_ >= n - 100; }));
        fs::rename(path(), path("x.log." + std::to_string(rotation)));
    }
    append(error("end"));
    ASSERT_TRUE(wait_records(n + 1));
    tail_->stop();
    EXPECT_EQ(records(), n + 1);
    EXPECT_EQ(lines_, n + 1);
}

TEST_P(TailTest, NoticesTruncationAndCopytruncate) {
    start();
    append(error("a") + error("b"));
    ASSERT_TRUE(wait_records(2));
    ASSERT_EQ(::truncate(path().c_str(), 0), 0);
    append(error("c"));
    ASSERT_TRUE(wait_records(3));
    EXPECT_TRUE(has("broken c"));
    // Refilled beyond the old end before anybody looks: only the head tells.
    append(error("d"));
    ASSERT_TRUE(wait_records(4));
    fs::copy_file(path(), path("x.log.1"));
    {
        std::ofstream out{path(), std::ios::trunc};
        for (int i = 0; i < 50; ++i) out << error("refilled " + std::to_string(i));
        out.flush();
    }
    ASSERT_TRUE(wait_records(54));
    tail_->stop();
    EXPECT_EQ(records(), 54U);
    EXPECT_GE(tail_->stats().truncations, 2U);
}

TEST_P(TailTest, ReadsFromTheCopyWhatWasWrittenBeforeTheTruncation) {
    start();
    append(error("aaaaaaaaaaaaaaaaaa"));
    ASSERT_TRUE(wait_records(1));
    set_full(true);  // so that the tail is late
    append(error("seen but not taken"));
    ASSERT_TRUE(eventually([&] { return tail_->stats().sink_full > 0; }));
    append(error("only in the copy"));
    fs::copy_file(path(), path("x.log.1"));
    ASSERT_EQ(::truncate(path().c_str(), 0), 0);
    append(error("after"));
    set_full(false);
    ASSERT_TRUE(wait_records(4));
    EXPECT_TRUE(has("broken only in the copy"));
    EXPECT_TRUE(has("broken after"));
}

TEST_P(TailTest, TakesALineWrittenInTwoHalvesAsOne) {
    start();
    const auto line = error("halves");
    append(line.substr(0, 20));
    ::usleep(300'000);
    EXPECT_EQ(records(), 0U);
    append(line.substr(20));
    ASSERT_TRUE(wait_records(1));
    EXPECT_TRUE(has("broken halves"));
    EXPECT_EQ(lines_, 1U);
}

TEST_P(TailTest, TakesALineThatNeverEndsAfterAWhileAndOnlyOnce) {
    options_.unfinished_wait = 100ms;
    start();
    append("panic: no line end");
    ASSERT_TRUE(wait_records(1));
    append(" and its late rest\n" + error("next"));
    ASSERT_TRUE(wait_records(2));
    EXPECT_TRUE(has("panic: no line end"));
    EXPECT_TRUE(has("broken next"));
    const auto offsets = tail_->stop();
    EXPECT_EQ(offsets.at(0).offset, fs::file_size(path()));
    EXPECT_EQ(records(), 2U);
}

TEST_P(TailTest, LeavesAnUnfinishedLineForTheNextStart) {
    start();
    const auto line = error("halves");
    append(error("a") + line.substr(0, 20));
    ASSERT_TRUE(wait_records(1));
    tail_->stop();
    append(line.substr(20));
    start();
    ASSERT_TRUE(wait_records(2));
    EXPECT_TRUE(has("broken halves"));
}

TEST_P(TailTest, GoesOnWhereTheOffsetsSay) {
    start();
    append(error("a"));
    ASSERT_TRUE(wait_records(1));
    tail_->stop();
    append(error("b"));
    start();
    ASSERT_TRUE(wait_records(2));
    tail_->stop();
    start();
    append(error("c"));
    ASSERT_TRUE(wait_records(3));
    tail_->stop();
    EXPECT_EQ(records(), 3U);
}

TEST_P(TailTest, ReadsTheRotatedFilesThatAreLeftWhenItWasDown) {
    start();
    append(error("a"));
    ASSERT_TRUE(wait_records(1));
    tail_->stop();
    append(error("b"));
    fs::rename(path(), path("x.log.2"));
    ::usleep(5'000);
    append(error("between"));
    fs::rename(path(), path("x.log.1"));
    append(error("c"));
    start();
    ASSERT_TRUE(wait_records(4));
    for (const char* id : {"a", "b", "between", "c"}) EXPECT_TRUE(has(std::string{"broken "} + id)) << id;
    tail_->stop();
    EXPECT_EQ(tail_->stats().gaps, 0U);
    start();  // and nothing a second time
    append(error("d"));
    ASSERT_TRUE(wait_records(5));
    tail_->stop();
    EXPECT_EQ(records(), 5U);
}

TEST_P(TailTest, CountsAGapWhenTheRotatedFileIsGone) {
    start();
    append(error("a"));
    ASSERT_TRUE(wait_records(1));
    tail_->stop();
    fs::rename(path(), path("y.log"));  // so that the inode is not given out again
    append(error("b"));
    start();
    ASSERT_TRUE(wait_records(2));
    EXPECT_EQ(tail_->stats().gaps, 1U);
}

TEST_P(TailTest, TakesNoOtherLogForARotatedOne) {
    start();
    append(error("a"));
    ASSERT_TRUE(wait_records(1));
    tail_->stop();
    append(error("other"), "x-errors.log");
    append(error("other"), "x.log.json");
    append(error("packed"), "x.log.2.gz");
    append(error("b"));
    fs::rename(path(), path("x.log.1"));
    append(error("c"));
    start();
    ASSERT_TRUE(wait_records(3));
    tail_->stop();
    EXPECT_EQ(records(), 3U);
}

TEST_P(TailTest, ReadsNothingThatLayBesideTheFileBefore) {
    append(error("old"), "x.log.1");
    append(error("a"));
    start();
    ASSERT_TRUE(wait_records(1));
    tail_->stop();
    fs::rename(path("x.log.1"), path("x.log.2"));
    fs::rename(path(), path("x.log.1"));
    append(error("b"));
    start();
    ASSERT_TRUE(wait_records(2));
    tail_->stop();
    EXPECT_EQ(records(), 2U);
    EXPECT_FALSE(has("broken old"));
}

TEST_P(TailTest, RefusesLinksPipesAndDevices) {
    const auto secret = path("secret");
    append(error("secret"), "secret");
    ASSERT_EQ(::symlink(secret.c_str(), path().c_str()), 0);
    ASSERT_EQ(::mkfifo(path("f.log").c_str(), 0600), 0);
    TailSource fifo = options_.sources[0];
    fifo.path = path("f.log");
    TailSource device = options_.sources[0];
    device.path = "/dev/zero";
    TailSource good = options_.sources[0];
    good.path = path("good.log");
    options_.sources.insert(options_.sources.end(), {fifo, device, good});
    start();
    append(error("good"), "good.log");
    ASSERT_TRUE(wait_records(1));
    EXPECT_TRUE(has("broken good"));
    EXPECT_EQ(tail_->stats().refused, 3U);
    EXPECT_EQ(tail_->stats().files_open, 1U);
}

TEST_P(TailTest, FollowsGlobsAndDoesNotReadARotatedFileTwice) {
    options_.sources[0].path = path("*.log*");
    options_.rotated_keep = 100ms;
    start();
    append(error("a"), "a.log");
    append(error("b"), "b.log");
    ASSERT_TRUE(wait_records(2));
    fs::rename(path("a.log"), path("a.log.1"));
    append(error("c"), "a.log");
    ASSERT_TRUE(wait_records(3));
    ASSERT_TRUE(eventually([&] { return tail_->stats().files_open == 2; }));  // the rotated one is closed
    ::usleep(200'000);                                                        // several scans
    append(error("d"), "b.log");
    ASSERT_TRUE(wait_records(4));
    tail_->stop();
    EXPECT_EQ(records(), 4U);
}

TEST_P(TailTest, CutsALineThatIsTooLongAndKeepsTheNext) {
    options_.max_line_bytes = 1000;
    start();
    append("ERROR " + std::string(3 << 20, 'x') + "\n" + error("next"));
    ASSERT_TRUE(wait_records(2));
    EXPECT_TRUE(has("broken next"));
    const std::lock_guard lock{mutex_};
    EXPECT_EQ(truncated_, 1U);
    EXPECT_LE(messages_.at(0).size(), 1000U);
}

TEST_P(TailTest, ReadsOddBytesAndKeepsCountOfThem) {
    start();
    std::string text = "\xEF\xBB\xBF" + error("bom");
    text += std::string{"ERROR nul \0 byte\r\n", 18} + "ERROR \xFF\xC0 bad utf8\n" + "\n\r\n";
    append(text);
    ASSERT_TRUE(wait_records(3));
    const auto offsets = tail_->stop();
    EXPECT_EQ(offsets.at(0).offset, text.size());
    EXPECT_EQ(lines_, 5U);
    EXPECT_EQ(bytes_, text.size());
}

TEST_P(TailTest, WaitsForRoomAndDropsNothing) {
    set_full(true);
    start();
    for (int i = 0; i < 5000; ++i) append(error(std::to_string(i)));
    ASSERT_TRUE(eventually([&] { return tail_->stats().sink_full > 3; }));
    EXPECT_EQ(records(), 0U);
    set_full(false);
    ASSERT_TRUE(wait_records(5000));
    tail_->stop();
    EXPECT_EQ(records(), 5000U);
}

TEST_P(TailTest, StopsThoughTheSinkIsFullAndLosesNothing) {
    start();
    append(error("a"));
    ASSERT_TRUE(wait_records(1));
    set_full(true);
    append(error("b"));
    ASSERT_TRUE(eventually([&] { return tail_->stats().sink_full > 0; }));
    tail_->stop();
    set_full(false);
    start();
    ASSERT_TRUE(wait_records(2));
    EXPECT_TRUE(has("broken b"));
}

TEST_P(TailTest, HandsOverOffsetsOfUninterestingLinesToo) {
    start();
    append("{\"level\":\"info\",\"msg\":\"fine\"}\n");
    ASSERT_TRUE(wait_for([&] { return below_ == 1; }));
    const std::lock_guard lock{mutex_};
    EXPECT_EQ(offsets_["file:" + path()].offset, fs::file_size(path()));
}

TEST_P(TailTest, JoinsATraceWrittenLineByLine) {
    start();
    for (const char* line :
         {"Traceback (most recent call last):\n",
          "  File \"/srv/w.py\", line 12, in <module>\n",
          "    main()\n",
          "ValueError: bad\n"})
        append(line);
    ASSERT_TRUE(wait_records(1));
    const std::lock_guard lock{mutex_};
    EXPECT_EQ(messages_.at(0), "ValueError: bad");
    EXPECT_NE(stacks_.at(0).find("main()"), std::string::npos);
    EXPECT_EQ(lines_, 4U);
}

TEST_P(TailTest, HoldsThatManyFilesAndNoMore) {
    options_.sources[0].path = path("*.log");
    options_.max_files = 5;
    for (int i = 0; i < 20; ++i) append(error(std::to_string(i)), std::to_string(i) + ".log");
    start();
    ASSERT_TRUE(wait_records(5));
    EXPECT_EQ(tail_->stats().files_open, 5U);
    EXPECT_EQ(tail_->stats().refused, 15U);
}

INSTANTIATE_TEST_SUITE_P(Ways, TailTest, ::testing::Bool(), [](const auto& way) {
    return way.param ? "Inotify" : "Polling";
});

}  // namespace
}  // namespace heal
