#include "model/mixer_ops.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "model/architecture.h"
#include "model/saved_arguments.h"

namespace nestrec {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor IndexTensor(const std::vector<int64_t>& values, const torch::Device& device) {
  return torch::tensor(values, torch::kInt64).to(device);
}

int64_t LengthOf(const std::vector<int64_t>& run_begins, int64_t run) {
  return run_begins[static_cast<size_t>(run) + 1] - run_begins[static_cast<size_t>(run)];
}

// The runs, the longest first; equally long ones in their order.
std::vector<int64_t> LongestFirst(const std::vector<int64_t>& run_begins) {
  std::vector<int64_t> runs(run_begins.size() - 1);
  std::iota(runs.begin(), runs.end(), 0);
  std::stable_sort(runs.begin(), runs.end(), [&](int64_t a, int64_t b) {
    return LengthOf(run_begins, a) > LengthOf(run_begins, b);
  });
  return runs;
}

// Rows in the order of time steps: step t's are rows [step_begins[t], step_begins[t + 1]), one for
// each run that is that long, the longest run first. The row of the same run one step earlier has
// the same place among its step's rows.
struct TimeOrder {
  explicit TimeOrder(const std::vector<int64_t>& run_begins) {
    const std::vector<int64_t> runs = LongestFirst(run_begins);
    packed_rows.reserve(static_cast<size_t>(run_begins.back()));
    const int64_t steps = runs.empty() ? 0 : LengthOf(run_begins, runs.front());
    for (int64_t step = 0; step < steps; ++step) {
      step_begins.push_back(static_cast<int64_t>(packed_rows.size()));
      for (const int64_t run : runs) {
        if (LengthOf(run_begins, run) <= step) break;
        packed_rows.push_back(run_begins[static_cast<size_t>(run)] + step);
      }
    }
    step_begins.push_back(static_cast<int64_t>(packed_rows.size()));
    places.resize(packed_rows.size());
    for (size_t place = 0; place < packed_rows.size(); ++place) {
      places[static_cast<size_t>(packed_rows[place])] = static_cast<int64_t>(place);
    }
  }

  int64_t steps() const { return static_cast<int64_t>(step_begins.size()) - 1; }
  int64_t begin(int64_t step) const { return step_begins[static_cast<size_t>(step)]; }
  int64_t count(int64_t step) const { return begin(step + 1) - begin(step); }
  // Places of the rows one step before those from step 1 on.
  std::vector<int64_t> PreviousPlaces() const {
    std::vector<int64_t> previous;
    for (int64_t step = 1; step < steps(); ++step) {
      for (int64_t i = 0; i < count(step); ++i) previous.push_back(begin(step - 1) + i);
    }
    return previous;
  }

  std::vector<int64_t> packed_rows;  // [P]: the packed row at each place
  std::vector<int64_t> places;       // [P]: the place of each packed row
  std::vector<int64_t> step_begins;  // [steps + 1]
};

struct GatedRecurrenceFunction : torch::autograd::Function<GatedRecurrenceFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x_reset, const Tensor& x_update,
                        const Tensor& x_candidate, const Tensor& u_reset, const Tensor& u_update,
                        const Tensor& u_candidate, const NestedSizes& sizes,
                        const std::vector<int64_t>& run_begins, const Arithmetic& arithmetic) {
    const TimeOrder order(run_begins);
    const Tensor packed_rows = IndexTensor(order.packed_rows, x_reset.device());
    // All in time order, [P, D]: first what the input says, then the gate's value.
    const Tensor r = x_reset.index_select(0, packed_rows);
    const Tensor u = x_update.index_select(0, packed_rows);
    const Tensor c = x_candidate.index_select(0, packed_rows);
    const Tensor recalled = torch::zeros_like(c);  // U_c h
    const Tensor h = torch::empty_like(c);
    const Arithmetic exact(Precision::kFloat32, arithmetic.portable);
    for (int64_t step = 0; step < order.steps(); ++step) {
      const auto of_step = [&](const Tensor& x) {
        return x.narrow(0, order.begin(step), order.count(step));
      };
      Tensor h_step = of_step(h);
      if (step == 0) {
        of_step(r).sigmoid_();
        of_step(u).sigmoid_();
        of_step(c).tanh_();
        torch::mul_out(h_step, of_step(c), 1 - of_step(u));
        continue;
      }
      const Tensor previous = h.narrow(0, order.begin(step - 1), order.count(step));
      NestedProduct(of_step(r), previous, u_reset, sizes, 1, exact);
      NestedProduct(of_step(u), previous, u_update, sizes, 1, exact);
      NestedProduct(of_step(recalled), previous, u_candidate, sizes, 0, exact);
      of_step(r).sigmoid_();
      of_step(u).sigmoid_();
      of_step(c).addcmul_(of_step(r), of_step(recalled)).tanh_();
      torch::lerp_out(h_step, of_step(c), previous, of_step(u));
    }
    ctx->save_for_backward({r, u, c, recalled, h, u_reset, u_update, u_candidate});
    ctx->saved_data["run_begins"] = run_begins;
    Save(sizes, arithmetic, ctx);
    return h.index_select(0, IndexTensor(order.places, h.device()));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto& [r, u, c, recalled, h] = std::tie(saved[0], saved[1], saved[2], saved[3], saved[4]);
    const TimeOrder order(ctx->saved_data["run_begins"].toIntVector());
    const NestedSizes sizes = SavedSizes(ctx);
    const Arithmetic arithmetic = SavedArithmetic(ctx);
    const Arithmetic exact(Precision::kFloat32, arithmetic.portable);

    const Tensor packed_rows = IndexTensor(order.packed_rows, h.device());
    const Tensor dh = grads[0].index_select(0, packed_rows);  // grows on the way back in time
    // Of what each gate's function is applied to, in time order, and of U_c h.
    const Tensor dr = torch::empty_like(h);
    const Tensor du = torch::empty_like(h);
    const Tensor dc = torch::empty_like(h);
    const Tensor drecalled = torch::empty_like(h);
    for (int64_t step = order.steps() - 1; step >= 0; --step) {
      const auto of_step = [&](const Tensor& x) {
        return x.narrow(0, order.begin(step), order.count(step));
      };
      const Tensor dh_step = of_step(dh);
      const Tensor u_step = of_step(u);
      const Tensor c_step = of_step(c);
      of_step(dc).copy_(dh_step * (1 - u_step) * (1 - c_step * c_step));
      if (step == 0) {
        of_step(dr).zero_();
        of_step(du).copy_(dh_step * c_step * (u_step * u_step - u_step));
        of_step(drecalled).zero_();
        continue;
      }
      const Tensor previous = h.narrow(0, order.begin(step - 1), order.count(step));
      const Tensor r_step = of_step(r);
      of_step(du).copy_(dh_step * (previous - c_step) * (u_step - u_step * u_step));
      of_step(dr).copy_(of_step(dc) * of_step(recalled) * (r_step - r_step * r_step));
      of_step(drecalled).copy_(of_step(dc) * r_step);
      const Tensor dprevious = dh.narrow(0, order.begin(step - 1), order.count(step));
      dprevious.addcmul_(dh_step, u_step);
      AddNestedInputGradient(dprevious, of_step(dr), saved[5], sizes, exact);
      AddNestedInputGradient(dprevious, of_step(du), saved[6], sizes, exact);
      AddNestedInputGradient(dprevious, of_step(drecalled), saved[7], sizes, exact);
    }
    const Tensor previous =
        h.index_select(0, IndexTensor(order.PreviousPlaces(), h.device()));  // [P - runs, D]
    const auto weight_gradient = [&](const Tensor& gradient) {
      const int64_t first = h.size(0) - previous.size(0);
      return NestedWeightGradient(gradient.narrow(0, first, previous.size(0)), previous, sizes,
                                  arithmetic);
    };
    const Tensor places = IndexTensor(order.places, h.device());
    return {dr.index_select(0, places),
            du.index_select(0, places),
            dc.index_select(0, places),
            weight_gradient(dr),
            weight_gradient(du),
            weight_gradient(drecalled),
            Tensor(),
            Tensor(),
            Tensor()};
  }
};

// Runs of about the same length, padded to the longest of them.
struct LengthGroup {
  int64_t runs = 0;
  int64_t length = 0;
  int64_t begin = 0;  // first of its runs * length slots
};

// Padding a group of runs to its longest wastes at most a quarter of the slots' length.
struct PaddedSlots {
  explicit PaddedSlots(const std::vector<int64_t>& run_begins)
      : slot_of_row(static_cast<size_t>(run_begins.back())) {
    for (const int64_t run : LongestFirst(run_begins)) {
      const int64_t length = LengthOf(run_begins, run);
      if (groups.empty() || 4 * length < 3 * groups.back().length) {
        groups.push_back({.length = length, .begin = static_cast<int64_t>(row_of_slot.size())});
      }
      ++groups.back().runs;
      const int64_t first = run_begins[static_cast<size_t>(run)];
      for (int64_t t = 0; t < groups.back().length; ++t) {
        // A slot without a row of its own holds a copy of the run's first: no real row sees it.
        if (t < length) slot_of_row[static_cast<size_t>(first + t)] = slots();
        row_of_slot.push_back(first + (t < length ? t : 0));
        is_real.push_back(t < length ? 1.0 : 0.0);
      }
    }
  }
  int64_t slots() const { return static_cast<int64_t>(row_of_slot.size()); }

  std::vector<LengthGroup> groups;
  std::vector<int64_t> row_of_slot;  // [slots]
  std::vector<int64_t> slot_of_row;  // [P]
  std::vector<double> is_real;       // [slots]: 1, or 0 for padding
};

// [P, D] rows into slots [S, D]. Gradients of padding slots are left out: whoever reads the slots
// gives them none that counts.
struct ToSlotsFunction : torch::autograd::Function<ToSlotsFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& rows, const Tensor& row_of_slot,
                        const Tensor& slot_of_row) {
    ctx->save_for_backward({slot_of_row});
    return rows.index_select(0, row_of_slot);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {grads[0].index_select(0, ctx->get_saved_variables()[0]), Tensor(), Tensor()};
  }
};

// And back; padding slots get no gradient.
struct FromSlotsFunction : torch::autograd::Function<FromSlotsFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& slots, const Tensor& row_of_slot,
                        const Tensor& slot_of_row, const Tensor& is_real) {
    ctx->save_for_backward({row_of_slot, is_real});
    return slots.index_select(0, slot_of_row);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    return {grads[0].index_select(0, saved[0]).mul_(saved[1]), Tensor(), Tensor(), Tensor()};
  }
};

// Consecutive columns of equally wide heads.
struct HeadGroup {
  int64_t begin, end, width;
};

std::vector<HeadGroup> HeadGroups(const NestedSizes& sizes, int head_width) {
  std::vector<HeadGroup> groups;
  for (int level = 0; level < sizes.levels(); ++level) {
    const int width = HeadWidth(sizes.width(level), head_width);
    if (groups.empty() || groups.back().width != width) {
      groups.push_back({sizes.begin(level), sizes.end(level), width});
    } else {
      groups.back().end = sizes.end(level);
    }
  }
  return groups;
}

}  // namespace

std::vector<int64_t> Depths(const std::vector<int64_t>& run_begins) {
  std::vector<int64_t> depths;
  for (size_t run = 0; run + 1 < run_begins.size(); ++run) {
    for (int64_t row = run_begins[run]; row < run_begins[run + 1]; ++row) {
      depths.push_back(row - run_begins[run]);
    }
  }
  return depths;
}

Tensor GatedRecurrence(const Tensor& x_reset, const Tensor& x_update, const Tensor& x_candidate,
                       const GateWeights& weights, const NestedSizes& sizes,
                       const std::vector<int64_t>& run_begins, const Arithmetic& arithmetic) {
  return GatedRecurrenceFunction::apply(x_reset, x_update, x_candidate, weights.reset,
                                        weights.update, weights.candidate, sizes, run_begins,
                                        arithmetic);
}

Tensor CausalAttention(const Tensor& q, const Tensor& k, const Tensor& v, const NestedSizes& sizes,
                       int head_width, const std::vector<int64_t>& run_begins, double dropout) {
  const PaddedSlots slots(run_begins);
  const torch::Device device = q.device();
  const Tensor row_of_slot = IndexTensor(slots.row_of_slot, device);
  const Tensor slot_of_row = IndexTensor(slots.slot_of_row, device);
  const Tensor is_real = torch::tensor(slots.is_real, torch::kFloat64).to(q.options()).unsqueeze(1);
  const auto to_slots = [&](const Tensor& rows) {
    return ToSlotsFunction::apply(rows, row_of_slot, slot_of_row);  // [S, D]
  };
  const Tensor q_slots = to_slots(q);
  const Tensor k_slots = to_slots(k);
  const Tensor v_slots = to_slots(v);
  std::vector<Tensor> outputs;  // per length group, [runs * length, D]
  for (const LengthGroup& group : slots.groups) {
    const Tensor later = torch::full({group.length, group.length},
                                     -std::numeric_limits<double>::infinity(), q.options())
                             .triu(1);
    std::vector<Tensor> columns;  // per head group, [runs * length, its columns]
    for (const HeadGroup& heads : HeadGroups(sizes, head_width)) {
      const auto split = [&](const Tensor& x) {  // [runs, heads, length, width]
        return x.narrow(0, group.begin, group.runs * group.length)
            .narrow(1, heads.begin, heads.end - heads.begin)
            .reshape({group.runs, group.length, -1, heads.width})
            .transpose(1, 2);
      };
      const Tensor scores =
          torch::matmul(split(q_slots) / std::sqrt(static_cast<double>(heads.width)),
                        split(k_slots).transpose(2, 3)) +
          later;
      Tensor shares = torch::softmax(scores, -1);
      if (dropout > 0) shares = torch::dropout(shares, dropout, /*train=*/true);
      columns.push_back(torch::matmul(shares, split(v_slots))
                            .transpose(1, 2)
                            .reshape({group.runs * group.length, heads.end - heads.begin}));
    }
    outputs.push_back(torch::cat(columns, 1));
  }
  return FromSlotsFunction::apply(torch::cat(outputs, 0), row_of_slot, slot_of_row, is_real);
}

}  // namespace nestrec
