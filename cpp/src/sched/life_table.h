// How long answers are: learned from those that ended and those that still run.
//
// A life table. For each interval of lengths it counts who came that far and who stopped there, so
// that an answer that was cut off, or runs, says "longer than this" and nothing more. What is older
// than some hundred answers is forgotten.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace mmcore {

class LifeTable {
 public:
  /// `prior` is the share that is taken to stop before it is twice as long, until answers tell.
  explicit LifeTable(double prior);

  /// An answer stopped by itself after `outputs` tokens.
  void stopped(int32_t outputs) { count(outputs, /*stopped=*/true); }
  /// An answer was ended by something else when it had `outputs` tokens.
  void cut(int32_t outputs) { count(outputs, /*stopped=*/false); }

  /// Makes the table that end() reads: all that has ended, and what runs. First begin_estimate(),
  /// then runs() for each answer that runs, then end_estimate(). O(1) each.
  void begin_estimate();
  void runs(int32_t outputs) { reached(now_, outputs); }
  void end_estimate();

  /// The length at which, of answers that have at least `outputs` tokens, the share `left` still
  /// goes on; at least `outputs` + 1, at most `limit`.
  int32_t end(int32_t outputs, double left, int32_t limit) const;

 private:
  // Four intervals for each doubling: 0, 1, 2, 3, 4, .. 7, 8-9, 10-11, ..
  static constexpr size_t kIntervals = 120;
  struct Counts {
    std::array<double, kIntervals> stopped{};
    std::array<double, kIntervals> reached{};  // that did not stop in it or before
    std::array<double, kIntervals> part{};     // of it: the sum of the shares that they passed
    size_t used = 0;                           // intervals from here on are empty
  };

  static size_t interval(int32_t length);
  static int64_t first(size_t interval);
  static double share(size_t interval, int32_t length);
  static void reached(Counts& counts, int32_t outputs);
  void count(int32_t outputs, bool stopped);
  double going_on(int32_t outputs) const;

  double prior_;  // share that stops within an interval
  Counts ended_;
  Counts now_;
  int32_t num_ended_ = 0;                       // since something was forgotten
  std::array<double, kIntervals + 1> alive_{};  // share that comes to the interval's beginning
};

}  // namespace mmcore
