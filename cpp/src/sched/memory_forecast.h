// How much memory sequences will need at most before enough of them have ended.
//
// Each sequence takes what it needs at once, grows by a token a step, and gives all back at its
// end. The need is greatest right before an end, so the sum is looked at there: at the last end of
// each of a few intervals of steps. All amounts are tokens' room, above what is held now.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace mmcore {

class MemoryForecast {
 public:
  struct Life {
    int64_t steps = 0;       // until it ends
    int64_t at_once = 0;     // what it takes besides growing
    bool grows = false;      // a token a step
    int64_t given_back = 0;  // at its end, of what it holds now
  };

  void clear();
  void add(const Life& life);
  /// The most that all need together at a time, as long as `entering` lives; what that one takes is
  /// gone with its end.
  int64_t peak(const Life& entering) const;

 private:
  // Eight intervals of steps for each doubling.
  static constexpr size_t kIntervals = 240;
  struct Ends {  // of an interval
    int64_t last = 0;
    int64_t at_once = 0;
    int64_t growing = 0;
    int64_t given_back = 0;
    void add(const Life& life);
  };

  static size_t interval(int64_t steps);

  std::array<Ends, kIntervals> ends_{};
  size_t used_ = 0;
  Ends all_;
};

}  // namespace mmcore
