// The arithmetic of one torch.optim class, on ATen, in the order of its single-tensor path
// (foreach=False) in PyTorch 2.11.
//
// An Optimizer holds nothing: options, scalars and tensors are handed in. Per step and parameter it
// is asked once to begin, on one thread; what it returns then updates the blocks of that parameter,
// in any order, on any threads. Every operation is element-wise, so the results do not depend on
// how a parameter is cut into shards and blocks, to the last bit. Where elements depend on each
// other it is a CoupledOptimizer (coupled_update.h).
#ifndef SHARDSTEP_OPTIM_OPTIMIZER_H_
#define SHARDSTEP_OPTIM_OPTIMIZER_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

class CoupledOptimizer;

// A part of one state tensor, before and after the step: the same memory, or two apart.
struct StateBlock {
  at::Tensor in;  // undefined: the state does not exist yet, and has no InitialValue
  at::Tensor out;
};

// A part of one shard: flat tensors of one length and of the parameter's dtype. The `in` tensors
// and the gradient are only read, except where an `out` is the same tensor.
struct Block {
  at::Tensor gradient;
  // What the gradient is multiplied by first, rounded to its dtype: the update's business if it
  // came from BeginVectorized, else its caller's.
  double coefficient = 1;
  at::Tensor value_in;
  at::Tensor value_out;
  std::vector<StateBlock> states;  // the kLikeParameter entries of States(), in that order
};

// Computes every `out` of a block. Safe to call on several threads for distinct blocks. ATen's
// exceptions (memory) pass through it.
using BlockUpdate = std::function<void(Block&)>;

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // The state that a step with these (checked) options uses, in the order in which PyTorch makes
  // it. A parameter gets it in its first step with a gradient, or at the start.
  virtual std::vector<StateSpec> States(const OptionMap& options) const = 0;

  // The same for a parameter of these sizes, where those matter.
  virtual std::vector<StateSpec> StatesOf(const OptionMap& options, const Shape& /*sizes*/) const {
    return States(options);
  }

  // Every state that some options make, in that order.
  virtual std::vector<StateSpec> AllStates() const = 0;

  // True if every parameter has its state from the start, before any gradient.
  virtual bool HasStateAtStart() const { return false; }

  // What `state` begins with under these options: the scalar, exact in its dtype, or every element,
  // rounded to the parameter's dtype. Nothing where the first update makes it.
  virtual std::optional<double> InitialValue(absl::string_view /*state*/,
                                             const OptionMap& /*options*/) const {
    return 0;
  }

  // Begins a step whose gradient consists of rows, of options that CheckTakesRows accepts (others
  // need not have it): as Begin, for blocks of rows that the gradient has.
  virtual BlockUpdate BeginRows(const OptionMap& options, at::ScalarType dtype,
                                absl::Span<double> scalars) const {
    return Begin(options, dtype, scalars);
  }

  // True if a step by rows moves every row. Then its blocks are of all elements, as of any other
  // step, with zeros where the gradient has no row.
  virtual bool RowsMoveAll(const OptionMap& /*options*/) const { return false; }

  // Begins a step of one parameter of `dtype` (float32 or float64): moves `scalars` (the kScalar
  // entries of States()) on and forms the step's factors, in double.
  virtual BlockUpdate Begin(const OptionMap& options, at::ScalarType dtype,
                            absl::Span<double> scalars) const = 0;

  // This; null where elements do not depend on each other.
  virtual const CoupledOptimizer* AsCoupled() const { return nullptr; }
  // The same with a kernel of ours (kernels/kernels.h) instead of ATen's operators: the same bits
  // in one pass over memory, Block's coefficient included. Null, with the scalars as they were,
  // where there is none for these options or this machine.
  virtual BlockUpdate BeginVectorized(const OptionMap& /*options*/, at::ScalarType /*dtype*/,
                                      absl::Span<double> /*scalars*/) const {
    return nullptr;
  }

  // True if an update may be given any part of a block instead, so that an operator finds in the
  // cache what the one before it left.
  virtual bool UpdatesAnyPart() const { return false; }
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIMIZER_H_
