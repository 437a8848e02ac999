// A model of python/mmcore as a ModelRunner of C++: the interpreter lives in this process.
//
// One PythonModel a process, and one engine for it. It must outlive the engine, every request made
// by it, and every copy of runner(). Threads: any, without the GIL, which each call takes for
// itself; the engine's thread takes it for each step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mmcore/config.h"
#include "mmcore/model_runner.h"
#include "mmcore/request.h"
#include "mmcore/status.h"

/// Pixels of the caller: rows of R, G, B from the top.
struct RgbImage {
  std::vector<uint8_t> rgb;
  int32_t width = 0;
  int32_t height = 0;
};

class PythonModel {
 public:
  /// Starts the interpreter that `python` names (a virtual environment's bin/python, whose packages
  /// it then sees) and loads a checkpoint with it.
  static mmcore::Result<std::unique_ptr<PythonModel>> load(const std::string& python,
                                                           const std::string& checkpoint);
  /// Ends the interpreter.
  ~PythonModel();

  mmcore::EngineConfig config() const;
  std::shared_ptr<mmcore::ModelRunner> runner() const;

  /// Tokenises, prepares the pictures, expands placeholders. Set sampling afterwards.
  mmcore::Result<mmcore::Request> make_request(const std::string& prompt,
                                               std::span<const RgbImage> images) const;
  mmcore::Result<std::string> decode(std::span<const mmcore::TokenId> ids) const;

 private:
  struct Interpreter;
  PythonModel();
  std::unique_ptr<Interpreter> interpreter_;
};
