// The table of a Math's kernels; for translation units of one instruction set.
#pragma once

#include "ops/linear_block_vec.h"
#include "ops/linear_rows_vec.h"

namespace mmcore::ops::simd {
namespace {

template <class M>
inline constexpr LinearKernels kLinearKernels = {.panel_tokens = kPanel,
                                                 .strip = kStrip,
                                                 .row_tokens = kRowTokens,
                                                 .units = units_of<M>,
                                                 .pack_panel = pack_panel<M>,
                                                 .block = run_block<M>,
                                                 .block_scratch = block_scratch,
                                                 .row_units = row_units<M>,
                                                 .pack_rows = pack_rows<M>,
                                                 .rows = run_rows<M>};

}  // namespace
}  // namespace mmcore::ops::simd
