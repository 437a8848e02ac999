// Random batches of attention on the GPU, with the answer in double from the contract in ops.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "device_tensor.h"
#include "ops/attention/problem.h"

namespace mmcore::cuda {

struct AttentionShape {
  std::vector<int32_t> queries;  // by sequence
  std::vector<int32_t> keys;
  int heads = 2;
  int kv_heads = 1;
  int dim = 64;
  int block_size = 16;  // 0: contiguous keys
  int window = 0;
  float scale = 0.125f;
  float soft_cap = 0.0f;
  bool causal = true;
  DType dtype = DType::kBFloat16;
  DType kv_dtype = DType::kBFloat16;
  float k_scale = 1.0f;  // of e4m3
  float v_scale = 1.0f;
  int padding = 0;           // elements between rows
  bool heads_first = false;  // in a block: [heads, rows, dim]

  std::string describe() const {
    std::ostringstream text;
    text << "heads " << heads << "/" << kv_heads << " dim " << dim << " block " << block_size
         << " window " << window << " cap " << soft_cap << " scale " << scale
         << (causal ? " causal " : " full ") << to_string(dtype) << "/" << to_string(kv_dtype)
         << " scales " << k_scale << " " << v_scale << " padding " << padding
         << (heads_first ? " heads first" : "") << ", queries+keys:";
    for (size_t n = 0; n < queries.size(); ++n) text << " " << queries[n] << "+" << keys[n];
    return text.str();
  }
};

/// Tensors of one batch. Everything that no query may see holds NaN, table entries past a
/// sequence's blocks are absurd, and so is what lies between rows.
class AttentionBatch {
 public:
  AttentionBatch(const AttentionShape& shape, uint32_t seed) : s(shape), rng_(seed) {
    const auto sequences = static_cast<int32_t>(s.queries.size());
    query_start_.assign(1, 0);
    key_start_.assign(1, 0);
    for (int32_t n = 0; n < sequences; ++n) {
      query_start_.push_back(query_start_.back() + s.queries[at(n)]);
      key_start_.push_back(key_start_.back() + s.keys[at(n)]);
    }
    const int64_t elements = int64_t{key_start_.back()} * s.kv_heads * s.dim;
    q_ = random(int64_t{rows()} * s.heads * s.dim, s.dtype, 1.0f);
    k_ = random(elements, s.kv_dtype, s.k_scale);
    v_ = random(elements, s.kv_dtype, s.v_scale);
    make_tables();

    const int64_t q_row = s.heads * s.dim + s.padding;
    std::vector<float> q_stored(at(rows() * q_row), kNaN);
    for (int64_t t = 0; t < rows(); ++t) {
      for (int64_t i = 0; i < s.heads * s.dim; ++i) {
        q_stored[at(t * q_row + i)] = q_[at(t * s.heads * s.dim + i)];
      }
    }
    q_dev_ = DeviceTensor::from(q_stored, {rows() * q_row}, s.dtype);
    out_dev_ = DeviceTensor(s.dtype, {rows() * q_row});
    query_start_dev_ = DeviceTensor::from(query_start_, {sequences + 1});
    key_start_dev_ = DeviceTensor::from(key_start_, {sequences + 1});
    if (s.block_size > 0) {
      seq_lens_dev_ = DeviceTensor::from(s.keys, {sequences});
      tables_dev_ = DeviceTensor::from(tables_, {sequences, width_});
    }
    const ops::KvRows layout = kv_layout();
    k_dev_ = DeviceTensor::from(stored(k_, layout), {kv_elements(layout)}, s.kv_dtype);
    v_dev_ = DeviceTensor::from(stored(v_, layout), {kv_elements(layout)}, s.kv_dtype);
  }

  ops::AttentionProblem problem() const {
    ops::AttentionProblem p{};
    p.q = q_dev_.view().data;
    p.out = out_dev_.view().data;
    p.q_row_stride = p.out_row_stride = s.heads * s.dim + s.padding;
    p.q_head_stride = p.out_head_stride = s.dim;
    p.k = p.v = kv_layout();
    p.k.data = k_dev_.view().data;
    p.v.data = v_dev_.view().data;
    p.dtype = s.dtype;
    p.kv_dtype = s.kv_dtype;
    p.query_start = query_start_dev_.view().ptr<int32_t>();
    if (s.block_size > 0) {
      p.seq_lens = seq_lens_dev_.view().ptr<int32_t>();
      p.block_tables = tables_dev_.view().ptr<int32_t>();
      p.table_stride = width_;
      while ((1 << p.block_shift) < s.block_size) ++p.block_shift;
    } else {
      p.kv_start = key_start_dev_.view().ptr<int32_t>();
    }
    p.sequences = static_cast<int32_t>(s.queries.size());
    p.heads = s.heads;
    p.kv_heads = s.kv_heads;
    p.head_dim = s.dim;
    p.scale = s.scale * s.k_scale;
    p.v_scale = s.v_scale;
    p.soft_cap = s.soft_cap;
    p.window = s.window;
    p.causal = s.causal;
    return p;
  }

  /// [T, heads, dim] as views for the ops; keys contiguous.
  TensorView q_view() const { return rows_view(q_dev_, rows(), s.heads, s.dtype); }
  TensorView out_view() const { return rows_view(out_dev_, rows(), s.heads, s.dtype); }
  TensorView k_view() const { return rows_view(k_dev_, key_rows(), s.kv_heads, s.kv_dtype); }
  TensorView v_view() const { return rows_view(v_dev_, key_rows(), s.kv_heads, s.kv_dtype); }
  const TensorView& cu_q() const { return query_start_dev_; }
  const TensorView& cu_k() const { return key_start_dev_; }
  std::vector<uint8_t> out_bytes() const { return out_dev_.bytes(); }

  /// [T, heads, dim], what lies between rows left out.
  std::vector<float> result() const {
    const std::vector<float> all = out_dev_.floats();
    const int64_t row = s.heads * s.dim + s.padding;
    std::vector<float> out;
    for (int64_t t = 0; t < rows(); ++t) {
      for (int64_t i = 0; i < row; ++i) {
        if (i < s.heads * s.dim) {
          out.push_back(all[at(t * row + i)]);
        } else {
          EXPECT_TRUE(std::isnan(all[at(t * row + i)])) << "written between rows";
        }
      }
    }
    return out;
  }

  std::vector<double> expected() const {
    std::vector<double> out(q_.size(), 0.0);
    for (size_t n = 0; n < s.queries.size(); ++n) {
      for (int32_t i = 0; i < s.queries[n]; ++i) {
        for (int h = 0; h < s.heads; ++h) expect_row(n, i, h, out);
      }
    }
    return out;
  }

  int64_t rows() const { return query_start_.back(); }
  int64_t key_rows() const { return key_start_.back(); }

 private:
  static constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  static size_t at(int64_t i) { return static_cast<size_t>(i); }

  std::vector<float> random(int64_t count, DType dtype, float scale) {
    std::normal_distribution<float> normal;
    std::vector<float> values(at(count));
    for (float& value : values) value = normal(rng_) / scale;
    return rounded(std::move(values), dtype);
  }

  /// Blocks in random order, with as many again that nobody owns.
  void make_tables() {
    if (s.block_size == 0) return;
    int32_t used = 0;
    width_ = 1;
    const auto blocks_of = [&](int32_t keys) { return (keys + s.block_size - 1) / s.block_size; };
    for (const int32_t keys : s.keys) {
      used += blocks_of(keys);
      width_ = std::max(width_, blocks_of(keys) + 2);
    }
    blocks_ = 2 * used + 1;
    std::vector<int32_t> order(at(blocks_));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), rng_);
    size_t next = 0;
    for (const int32_t keys : s.keys) {
      for (int32_t b = 0; b < width_; ++b) {
        tables_.push_back(b < blocks_of(keys) ? order[next++] : 0x7ffffff0);
      }
    }
  }

  ops::KvRows kv_layout() const {
    const int64_t row = s.kv_heads * s.dim + s.padding;
    if (s.block_size == 0) return {nullptr, 0, row, s.dim};
    if (!s.heads_first) return {nullptr, s.block_size * row, row, s.dim};
    const int64_t head = s.block_size * int64_t{s.dim} + s.padding;
    return {nullptr, s.kv_heads * head, s.dim, head};
  }

  int64_t kv_elements(const ops::KvRows& layout) const {
    return s.block_size == 0 ? key_rows() * layout.row_stride : blocks_ * layout.block_stride;
  }

  std::vector<float> stored(const std::vector<float>& values, const ops::KvRows& layout) const {
    std::vector<float> out(at(kv_elements(layout)), kNaN);
    for (size_t n = 0; n < s.keys.size(); ++n) {
      for (int64_t j = 0; j < s.keys[n]; ++j) {
        int64_t row = (key_start_[n] + j) * layout.row_stride;
        if (s.block_size > 0) {
          const int64_t block = tables_[n * at(width_) + at(j / s.block_size)];
          row = block * layout.block_stride + j % s.block_size * layout.row_stride;
        }
        for (int64_t h = 0; h < s.kv_heads; ++h) {
          for (int64_t d = 0; d < s.dim; ++d) {
            out[at(row + h * layout.head_stride + d)] =
                values[at(((key_start_[n] + j) * s.kv_heads + h) * s.dim + d)];
          }
        }
      }
    }
    return out;
  }

  TensorView rows_view(const DeviceTensor& t, int64_t rows, int64_t heads, DType dtype) const {
    TensorView view(t.view().data, dtype, {rows, heads, s.dim}, t.view().device);
    view.strides[0] = heads * s.dim + s.padding;
    return view;
  }

  void expect_row(size_t n, int32_t i, int h, std::vector<double>& out) const {
    const int32_t position = s.keys[n] - s.queries[n] + i;
    const int32_t end = s.causal ? std::min(position + 1, s.keys[n]) : s.keys[n];
    const int32_t begin = s.window > 0 ? std::max(0, position - s.window + 1) : 0;
    const int64_t row = (int64_t{query_start_[n]} + i) * s.heads + h;
    const auto key_row = [&](int32_t j) {
      return at(((int64_t{key_start_[n]} + j) * s.kv_heads + h / (s.heads / s.kv_heads)) * s.dim);
    };
    std::vector<double> weights;
    double top = -HUGE_VAL, total = 0;
    for (int32_t j = begin; j < end; ++j) {
      double parts[8] = {};  // head dims are multiples of 8; several sums are several times as fast
      for (int d = 0; d < s.dim; d += 8) {
        for (int e = 0; e < 8; ++e) {
          parts[e] += double{q_[at(row * s.dim + d + e)]} * double{k_[key_row(j) + at(d + e)]};
        }
      }
      double score = std::accumulate(std::begin(parts), std::end(parts), 0.0);
      score *= double{s.scale} * double{s.k_scale};
      if (s.soft_cap > 0) score = s.soft_cap * std::tanh(score / s.soft_cap);
      weights.push_back(score);
      top = std::max(top, score);
    }
    for (double& weight : weights) total += weight = std::exp(weight - top);
    for (int32_t j = begin; j < end; ++j) {
      const double weight = s.v_scale * weights[at(j - begin)] / total;
      for (int d = 0; d < s.dim; ++d) {
        out[at(row * s.dim + d)] += weight * double{v_[key_row(j) + at(d)]};
      }
    }
  }

  const AttentionShape s;
  std::mt19937 rng_;
  std::vector<int32_t> query_start_, key_start_, tables_;
  int32_t width_ = 0;
  int64_t blocks_ = 0;
  std::vector<float> q_, k_, v_;  // without padding, sequence by sequence
  DeviceTensor q_dev_, k_dev_, v_dev_, out_dev_;
  DeviceTensor query_start_dev_, key_start_dev_, seq_lens_dev_, tables_dev_;
};

/// Errors of many results together, and how far each may be off.
struct ErrorSums {
  double errors = 0;
  double values = 0;

  void add(const std::vector<float>& got, const std::vector<double>& want) {
    for (size_t i = 0; i < got.size() && i < want.size(); ++i) {
      errors += (got[i] - want[i]) * (got[i] - want[i]);
      values += want[i] * want[i];
    }
  }
  double relative() const { return values > 0 ? std::sqrt(errors / values) : 0; }
};

/// The worst row's largest error over its root mean square.
inline double worst_row_error(const AttentionShape& s, const std::vector<float>& got,
                              const std::vector<double>& want) {
  const auto dim = static_cast<size_t>(s.dim);
  double worst = got.size() == want.size() ? 0 : HUGE_VAL;
  for (size_t i = 0; i + dim <= got.size() && worst < HUGE_VAL; i += dim) {
    worst = std::max(worst, relative_error({got.data() + i, dim}, {want.data() + i, dim}));
  }
  return worst;
}

/// For worst_row_error. Rounding a weight or a result to bfloat16 is off by up to 2^-9 of a value
/// that may be four times the row's rms; sums of many weights add their errors at random.
inline double tolerance(DType dtype) {
  return dtype == DType::kFloat32 ? 2e-4 : dtype == DType::kFloat16 ? 4e-3 : 3e-2;
}

/// The root-mean-square error over many shapes; peers show 2.0e-3 to 2.6e-3 in bfloat16.
inline double rms_tolerance(DType dtype) {
  return dtype == DType::kFloat32 ? 1e-5 : dtype == DType::kFloat16 ? 4e-4 : 2.6e-3;
}

}  // namespace mmcore::cuda
