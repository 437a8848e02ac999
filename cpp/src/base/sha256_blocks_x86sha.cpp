// SHA-256's blocks with the SHA instructions of x86; compiled with -msha -msse4.1. Calls nothing
// that another file might share the code of.
#include <immintrin.h>

#include <utility>

#include "base/sha256_blocks.h"

namespace mmcore {
namespace {

// The instructions keep the eight words in two registers, the first-named word in the highest lane.
struct State {
  __m128i abef;
  __m128i cdgh;
};

__m128i load(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

/// The last sixteen words of the message schedule.
struct Schedule {
  __m128i words[4];
};

/// Rounds 4 * I to 4 * I + 3.
template <size_t I>
inline void four_rounds(State& s, Schedule& schedule) {
  __m128i* w = schedule.words;
  __m128i& words = w[I % 4];
  if constexpr (I >= 4) {  // replace the oldest four words by the next four
    const __m128i& before = w[(I - 1) % 4];
    const __m128i from_seven = _mm_alignr_epi8(before, w[(I - 2) % 4], 4);
    const __m128i partly = _mm_sha256msg1_epu32(words, w[(I - 3) % 4]);
    words = _mm_sha256msg2_epu32(_mm_add_epi32(partly, from_seven), before);
  }
  const __m128i k = _mm_add_epi32(words, load(&kSha256RoundConstants[4 * I]));
  // Two rounds turn ABEF into CDGH, so that the registers exchange their roles.
  s.cdgh = _mm_sha256rnds2_epu32(s.cdgh, s.abef, k);
  s.abef = _mm_sha256rnds2_epu32(s.abef, s.cdgh, _mm_shuffle_epi32(k, 0x0e));
}

template <size_t... I>
inline void all_rounds(State& s, Schedule& schedule, std::index_sequence<I...> /*groups*/) {
  (four_rounds<I>(s, schedule), ...);
}

template <int Lane>
uint32_t lane(__m128i v) {
  return static_cast<uint32_t>(_mm_extract_epi32(v, Lane));
}

}  // namespace

void sha256_blocks_x86sha(uint32_t* state, const uint8_t* blocks, size_t count) {
  const __m128i swap_bytes = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
  const auto word = [state](int i) { return static_cast<int>(state[i]); };
  State s{_mm_set_epi32(word(0), word(1), word(4), word(5)),
          _mm_set_epi32(word(2), word(3), word(6), word(7))};
  for (const uint8_t* block = blocks; count > 0; --count, block += 64) {
    Schedule schedule;
    for (size_t i = 0; i < 4; ++i)
      schedule.words[i] = _mm_shuffle_epi8(load(block + 16 * i), swap_bytes);
    const State before = s;
    all_rounds(s, schedule, std::make_index_sequence<16>());
    s.abef = _mm_add_epi32(s.abef, before.abef);
    s.cdgh = _mm_add_epi32(s.cdgh, before.cdgh);
  }
  state[0] = lane<3>(s.abef);
  state[1] = lane<2>(s.abef);
  state[2] = lane<3>(s.cdgh);
  state[3] = lane<2>(s.cdgh);
  state[4] = lane<1>(s.abef);
  state[5] = lane<0>(s.abef);
  state[6] = lane<1>(s.cdgh);
  state[7] = lane<0>(s.cdgh);
}

}  // namespace mmcore
