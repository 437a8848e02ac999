// Queries, keys and values as the bulk tensor copy engine sees them.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "attention/prefill_params.h"
#include "host/device.h"

namespace mmcore::cuda {

/// Dimensions: element, head, row (within its block), block. A box holds 64 elements of box_rows
/// rows of one head, of q those of a tile. Elements past the head dim read as zeros. Boxes of e4m3
/// hold whole rows, side by side.
struct AttentionMaps {
  CUtensorMap q;
  CUtensorMap k;
  CUtensorMap v;
  int32_t box_rows;
};

/// True when q, k and v can be described: rows and heads that begin at multiples of 16 bytes, and
/// blocks of at least 8 rows, which keeps boxes on whole groups of swizzled rows.
bool attention_maps_possible(const PrefillParams& params);

/// Of at most `rows` rows of keys a box, a power of two.
Status attention_maps(const char* op, const PrefillParams& params, int32_t rows,
                      AttentionMaps& maps);

/// q, k and v of one 16-bit dtype, attention_maps_possible(); compute capability 9.0.
template <int D>
Status launch_prefill_wgmma(const char* op, const PrefillParams& params, const DeviceFacts& facts,
                            cudaStream_t stream);

/// q of a 16-bit dtype, paged k and v of e4m3; otherwise as above. D: a multiple of 16.
template <int D>
Status launch_prefill_wgmma_e4m3(const char* op, const PrefillParams& params,
                                 const DeviceFacts& facts, cudaStream_t stream);

}  // namespace mmcore::cuda
