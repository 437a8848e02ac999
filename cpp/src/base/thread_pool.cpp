#include "base/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/cpu_topology.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mmcore {
namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

/// Spins until `done` holds or about 40 us have passed; says which. Longer than the gap between two
/// ops of one step, shorter than anybody would notice on an idle machine.
template <class Done>
bool spin_until(Done done) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + std::chrono::microseconds(40);
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      relax();
    }
  } while (Clock::now() < end);
  return false;
}

thread_local bool inside_body = false;

class Pool {
 public:
  explicit Pool(int threads) { start(threads); }

  int threads() const { return threads_.load(std::memory_order_relaxed); }

  void resize(int threads) {
    std::lock_guard lock(caller_);
    stop();
    start(threads);
  }

  /// False when another caller has the pool.
  bool run(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
    std::unique_lock lock(caller_, std::try_to_lock);
    if (!lock) return false;
    // Four ranges a thread even out unequal work and threads that the system takes away.
    const int64_t grains = (n + grain - 1) / grain;
    const int64_t ranges = int64_t{4} * threads();
    step_ = grain * std::max<int64_t>(1, grains / ranges);
    n_ = n;
    body_ = &body;
    error_ = nullptr;
    next_.store(0, std::memory_order_relaxed);
    open();
    work();
    close();
    if (error_) std::rethrow_exception(error_);
    return true;
  }

 private:
  // state_ = [ epoch : 32 | open : 1 | workers inside the job : 31 ]. A worker may read the job
  // only after it has counted itself in while `open` was set; the caller changes the job only after
  // it has cleared `open` and seen the count at zero. Late workers are never waited for.
  static constexpr uint64_t kOpen = uint64_t{1} << 31;
  static constexpr uint64_t kCount = kOpen - 1;
  static constexpr uint64_t kEpoch = uint64_t{1} << 32;

  void start(int threads) {
    stopping_.store(false);
    threads_.store(std::max(1, threads), std::memory_order_relaxed);
    const uint64_t epoch = state_.load() / kEpoch;
    for (int i = 1; i < this->threads(); ++i) {
      try {
        workers_.emplace_back([this, epoch] { loop(epoch); });
      } catch (const std::system_error&) {  // no more threads to be had: go on with what there is
        threads_.store(i, std::memory_order_relaxed);
        break;
      }
    }
  }

  void stop() {
    stopping_.store(true);
    wake();
    for (std::thread& t : workers_) t.join();
    workers_.clear();
  }

  void open() {
    state_.store((state_.load(std::memory_order_relaxed) / kEpoch + 1) * kEpoch | kOpen);
    if (sleepers_.load() != 0) wake();
  }

  void close() {
    state_.fetch_and(~kOpen);
    const auto empty = [this] { return (state_.load() & kCount) == 0; };
    if (spin_until(empty)) return;
    std::unique_lock lock(mutex_);
    caller_sleeps_.store(true);
    done_.wait(lock, empty);
    caller_sleeps_.store(false);
  }

  void wake() {
    {
      std::lock_guard lock(mutex_);
    }  // a worker between its last look and its sleep holds it
    wake_.notify_all();
  }

  void work() {
    inside_body = true;
    for (;;) {
      const int64_t begin = next_.fetch_add(step_, std::memory_order_relaxed);
      if (begin >= n_) break;
      try {
        (*body_)(begin, std::min(n_, begin + step_));
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        next_.store(n_, std::memory_order_relaxed);
      }
    }
    inside_body = false;
  }

  void loop(uint64_t seen) {
    const auto news = [this, &seen] {
      return state_.load() / kEpoch != seen || stopping_.load(std::memory_order_relaxed);
    };
    for (;;) {
      if (!spin_until(news)) {
        std::unique_lock lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, news);
        sleepers_.fetch_sub(1);
      }
      if (stopping_.load()) return;
      uint64_t state = state_.load();
      seen = state / kEpoch;
      while ((state & kOpen) != 0 && !state_.compare_exchange_weak(state, state + 1)) {
      }
      if ((state & kOpen) == 0) continue;
      seen = state / kEpoch;
      work();
      if (((state_.fetch_sub(1) - 1) & (kCount | kOpen)) == 0 && caller_sleeps_.load()) {
        {
          std::lock_guard lock(mutex_);
        }
        done_.notify_one();
      }
    }
  }

  std::mutex caller_;  // held by the call that has the pool
  std::atomic<int> threads_{1};
  std::vector<std::thread> workers_;
  std::atomic<bool> stopping_{false};

  alignas(64) std::atomic<uint64_t> state_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::mutex mutex_;  // of both condition variables and error_
  std::condition_variable wake_;
  std::condition_variable done_;

  alignas(64) std::atomic<int64_t> next_{0};
  int64_t n_ = 0;
  int64_t step_ = 1;
  FunctionRef<void(int64_t, int64_t)>* body_ = nullptr;
  std::exception_ptr error_;
};

// The pool is never destroyed: at exit other threads may still be inside an op. In a forked child
// it is forgotten, because its threads exist in the parent only.
std::atomic<Pool*> pool_instance{nullptr};
std::mutex pool_mutex;

Pool& pool() {
  if (Pool* p = pool_instance.load(std::memory_order_acquire)) return *p;
  std::lock_guard lock(pool_mutex);
  if (Pool* p = pool_instance.load(std::memory_order_relaxed)) return *p;
  static const int registered =
      pthread_atfork([] { pool_mutex.lock(); }, [] { pool_mutex.unlock(); },
                     [] {
                       pool_instance.store(nullptr);
                       pool_mutex.unlock();
                     });
  static_cast<void>(registered);
  static const int cores = usable_cores();
  Pool* p = new Pool(cores);
  pool_instance.store(p, std::memory_order_release);
  return *p;
}

}  // namespace

void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t begin, int64_t end)> body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(1, grain);
  if (n > grain && !inside_body) {
    Pool& p = pool();
    if (p.threads() > 1 && p.run(n, grain, body)) return;
  }
  body(0, n);
}

int pool_threads() { return pool().threads(); }

void set_pool_threads(int n) {
  if (!inside_body) pool().resize(n);
}

}  // namespace mmcore
