// SHA-256's work on whole blocks of 64 bytes, in the ways that processors offer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mmcore {

/// Mixes `count` blocks of 64 bytes into the eight words of the state.
using Sha256Blocks = void (*)(uint32_t* state, const uint8_t* blocks, size_t count);

/// FIPS 180-4's constants of the 64 rounds.
extern const uint32_t kSha256RoundConstants[64];

void sha256_blocks_scalar(uint32_t* state, const uint8_t* blocks, size_t count);

#if defined(__x86_64__)
/// With the SHA instructions; only where `has_sha_instructions()`.
void sha256_blocks_x86sha(uint32_t* state, const uint8_t* blocks, size_t count);
#endif

/// Whether the processor that this runs on has SHA instructions which mmcore uses.
bool has_sha_instructions();

/// The fastest that this processor can run.
Sha256Blocks fastest_sha256_blocks();

}  // namespace mmcore
