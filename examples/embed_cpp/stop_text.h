// Ends a text where a stop string begins, without showing the first characters of one that may
// come.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace service {

class StopText {
 public:
  explicit StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  /// Takes what was generated and gives what may be shown: nothing from a stop string on, and not
  /// yet an end that is the beginning of one.
  std::string push(std::string_view text);
  /// Gives what was held back, when no more text comes.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace service
