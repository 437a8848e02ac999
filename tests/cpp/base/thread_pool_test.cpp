// Layer: unit.
#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/cpu_topology.h"

namespace mmcore {
namespace {

class ThreadPool : public ::testing::Test {
 protected:
  void TearDown() override { set_pool_threads(before_); }

 private:
  int before_ = pool_threads();
};

/// Times each index of [0, n) was visited.
std::vector<int> visits(int64_t n, int64_t grain) {
  std::vector<std::atomic<int>> count(static_cast<size_t>(n));
  parallel_for(n, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++count[static_cast<size_t>(i)];
  });
  return {count.begin(), count.end()};
}

TEST_F(ThreadPool, VisitsEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    set_pool_threads(threads);
    EXPECT_EQ(pool_threads(), threads);
    for (const int64_t n : {0, 1, 2, 7, 64, 1000, 4097}) {
      for (const int64_t grain : {1, 3, 64, 5000}) {
        EXPECT_EQ(visits(n, grain), std::vector<int>(static_cast<size_t>(n), 1))
            << n << " by " << grain << " with " << threads;
      }
    }
  }
}

TEST_F(ThreadPool, BeginsAtMultiplesOfTheGrain) {
  set_pool_threads(3);
  std::atomic<int> wrong{0};
  parallel_for(1000, 7, [&](int64_t begin, int64_t end) {
    if (begin % 7 != 0 || end <= begin || (end % 7 != 0 && end != 1000)) ++wrong;
  });
  EXPECT_EQ(wrong, 0);
}

TEST_F(ThreadPool, UsesItsThreads) {
  set_pool_threads(2);
  // Each range waits until the other has begun: one thread alone would never end.
  std::atomic<int> begun{0};
  parallel_for(2, 1, [&](int64_t, int64_t) {
    ++begun;
    while (begun < 2) std::this_thread::yield();
  });
  EXPECT_EQ(begun, 2);
}

TEST_F(ThreadPool, RunsNestedCallsInline) {
  set_pool_threads(3);
  std::atomic<int64_t> sum{0};
  std::atomic<int> elsewhere{0};
  parallel_for(20, 1, [&](int64_t begin, int64_t end) {
    const std::thread::id outer = std::this_thread::get_id();
    parallel_for(10, 1, [&](int64_t inner_begin, int64_t inner_end) {
      if (std::this_thread::get_id() != outer) ++elsewhere;
      sum += (end - begin) * (inner_end - inner_begin);
    });
  });
  EXPECT_EQ(sum, 200);
  EXPECT_EQ(elsewhere, 0);
}

TEST_F(ThreadPool, RethrowsAndStaysUsable) {
  for (const int threads : {1, 3}) {
    set_pool_threads(threads);
    for (int64_t bad : {0, 50, 99}) {
      EXPECT_THROW(parallel_for(100, 1,
                                [&](int64_t begin, int64_t end) {
                                  if (begin <= bad && bad < end) throw std::runtime_error("bad");
                                }),
                   std::runtime_error);
      EXPECT_EQ(visits(100, 1), std::vector<int>(100, 1));
    }
  }
}

TEST_F(ThreadPool, ServesSeveralCallers) {
  set_pool_threads(3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        std::atomic<int64_t> sum{0};
        parallel_for(100, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) sum += i;
        });
        if (sum != 4950) ++wrong;
      }
    });
  }
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(wrong, 0);
}

/// Each round reads what the round before wrote elsewhere, so a lost or early return shows.
TEST_F(ThreadPool, CallsInARowSeeEachOthersWrites) {
  set_pool_threads(3);
  std::vector<int64_t> now(64, 0);
  std::vector<int64_t> next(64, 0);
  for (int64_t round = 0; round < 3000; ++round) {
    parallel_for(64, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        next[static_cast<size_t>(i)] = now[static_cast<size_t>(63 - i)] + 1;
      }
    });
    std::swap(now, next);
  }
  EXPECT_EQ(now, std::vector<int64_t>(64, 3000));
}

TEST_F(ThreadPool, WorksInAForkedChild) {
  set_pool_threads(3);
  ASSERT_EQ(visits(100, 1), std::vector<int>(100, 1));
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    set_pool_threads(2);
    _exit(visits(1000, 1) == std::vector<int>(1000, 1) ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(visits(100, 1), std::vector<int>(100, 1));
}

TEST_F(ThreadPool, IgnoresResizingFromInside) {
  set_pool_threads(2);
  parallel_for(10, 1, [](int64_t, int64_t) { set_pool_threads(7); });
  EXPECT_EQ(pool_threads(), 2);
}

TEST_F(ThreadPool, HasAtLeastOneThread) {
  set_pool_threads(-3);
  EXPECT_EQ(pool_threads(), 1);
  EXPECT_GE(usable_cores(), 1);
  EXPECT_LE(usable_cores(), static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace mmcore
