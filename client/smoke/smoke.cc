#include <cstdio>
#include <thread>
#include <numeric>
#include <cmath>
#include "absl/time/clock.h"
#include "shardstep/client/client.h"
using namespace shardstep;
#define CHECK_OK(e) do { auto _s = (e); if (!_s.ok()) { std::printf("%s:%d %s: %s\n", __FILE__, __LINE__, #e, _s.ToString().c_str()); std::exit(1);} } while (0)
template <typename T> T V(absl::StatusOr<T> v, int line) { if (!v.ok()) { std::printf("line %d: %s\n", line, v.status().ToString().c_str()); std::exit(1);} return std::move(*v); }
#define VAL(e) V(e, __LINE__)
#define CHECK(c) do { if (!(c)) { std::printf("line %d failed: %s\n", __LINE__, #c); std::exit(1);} } while (0)
void Trainer(Client client, int rank, int trainers) {
  std::vector<float> w(1000000, 1.0f), b(7, 2.0f), gw(1000000), gb(7);
  auto named = [](std::string n, float* p, Shape s) { NamedTensor t; t.name = n; t.value = MakeTensorView(p, s); return t; };
  std::vector<NamedTensor> params{named("w", w.data(), {1000, 1000}), named("b", b.data(), {7})};
  params[0].spec = Chunk{1, {{0}, {1}, {2}}};
  auto opt = VAL(client.CreateOptimizer("smoke", params, SGDOptions(0.5).momentum(0.9), Synchronous(trainers), rank));
  VAL(opt.Pull(params));
  std::vector<float> ew(w), eb(b), mw(w.size()), mb(b.size());
  for (int step = 0; step < 5; ++step) {
    for (size_t i = 0; i < gw.size(); ++i) gw[i] = static_cast<float>((i * 7 + step) % 13) * (rank + 1);
    for (size_t i = 0; i < gb.size(); ++i) gb[i] = static_cast<float>(i + rank);
    auto push = VAL(opt.StartPush());
    CHECK_OK(push.Add("b", MakeTensorView(gb.data(), {7})));
    CHECK_OK(push.Add("w", MakeTensorView(gw.data(), {1000, 1000})));
    CHECK_OK(push.Finish());
    StepOptions o; o.snapshot = SnapshotContents::kEverything;
    auto r = VAL(opt.Step(o));
    auto p = VAL(opt.Pull(params));
    CHECK(p.version == r.version && r.version == static_cast<uint64_t>(step + 1));
    for (size_t i = 0; i < w.size(); ++i) {
      float g = 0; for (int t = 0; t < trainers; ++t) g += static_cast<float>((i * 7 + step) % 13) * (t + 1);
      g /= trainers;
      mw[i] = step == 0 ? g : mw[i] * 0.9f + g;
      ew[i] -= 0.5f * mw[i];
      if (std::fabs(ew[i] - w[i]) > 1e-3) { std::printf("rank %d step %d w[%zu] %f != %f\n", rank, step, i, w[i], ew[i]); std::exit(1); }
    }
    auto st = VAL(opt.state());
    CHECK(st.version == r.version);
    CHECK(st.state.at("w").count("momentum_buffer") == 1);
    const auto& buf = std::get<HostTensor>(st.state.at("w").at("momentum_buffer"));
    const float* m = reinterpret_cast<const float*>(buf.bytes.data());
    for (size_t i = 0; i < w.size(); ++i) CHECK(std::fabs(m[i] - mw[i]) < 1e-3);
    CHECK(st.param_groups[0].params.size() == 2);
    if (rank == 0) std::printf("step %d norm %f\n", step, r.grad_norm);
  }
  CHECK_OK(opt.SetOption(0, "lr", 0.0));
  CHECK_OK(opt.ZeroGrad(false));
  VAL(opt.Step({}));
}
int main(int, char** argv) {
  auto client = VAL(Client::Connect(argv[1]));
  auto t0 = absl::Now();
  { std::thread a([&] { Trainer(client, 0, 2); }), b([&] { Trainer(client, 1, 2); }); a.join(); b.join(); }
  std::printf("sync ok %s\n", absl::FormatDuration(absl::Now() - t0).c_str());
  for (auto& o : VAL(client.ListOptimizers())) std::printf("%s %s v%lu %s\n", o.name.c_str(), o.kind.c_str(), (unsigned long)o.version, o.state.c_str());
  for (auto& s : VAL(client.ListSessions("smoke"))) std::printf("rank %d session %lu lapsed %d\n", s.trainer_rank, (unsigned long)s.session, s.lapsed);
  auto reader = VAL(client.OpenReader("smoke"));
  std::vector<float> part(500); NamedTensor t; t.name = "w"; t.global_sizes = {1000, 1000};
  t.local_shards = {{{{10, 300}, {1, 500}, {}}, MakeTensorView(part.data(), {1, 500})}};
  auto p = VAL(reader.Pull({t}));
  std::printf("reader v%lu part[0]=%f\n", (unsigned long)p.version, part[0]);
  CHECK_OK(client.DeleteOptimizer("smoke"));
  std::printf("%s\n", client.Describe("smoke").status().ToString().c_str());
  // local shards
  {
    auto run = [&](int rank) {
      std::vector<float> mine(20, rank + 1.0f), bias(3, 1.0f), g(20, 1.0f + rank), gb(3, 1.0f + rank);
      NamedTensor s; s.name = "table"; s.global_sizes = {4, 10};
      s.local_shards = {{{{rank * 2, 0}, {2, 10}, {}}, MakeTensorView(mine.data(), {2, 10})}};
      NamedTensor bt; bt.name = "bias"; bt.value = MakeTensorView(bias.data(), {3});
      auto opt = VAL(client.CreateOptimizer("sharded", std::vector<NamedTensor>{s, bt}, SGDOptions(1.0), Synchronous(2), rank));
      std::vector<float> before(mine);
      VAL(opt.Pull(std::vector<NamedTensor>{s, bt}));
      for (size_t i = 0; i < mine.size(); ++i) if (mine[i] != before[i]) std::printf("rank %d before step: mine[%zu] = %g\n", rank, i, mine[i]);
      auto push = VAL(opt.StartPush());
      CHECK_OK(push.AddShards("table", {MakeTensorView(g.data(), {2, 10})}));
      CHECK_OK(push.Add("bias", MakeTensorView(gb.data(), {3})));
      CHECK_OK(push.Finish());
      VAL(opt.Step());
      VAL(opt.Pull(std::vector<NamedTensor>{s, bt}));
      for (size_t i = 0; i < mine.size(); ++i) if (mine[i] != 0.0f) std::printf("rank %d after step: mine[%zu] = %g\n", rank, i, mine[i]);

      for (float x : bias) CHECK(x == 1.0f - 1.5f);
    };
    std::thread a(run, 0), b(run, 1); a.join(); b.join();
    CHECK_OK(client.DeleteOptimizer("sharded"));
    std::printf("sharded ok\n");
  }
  // async, 4 trainers
  {
    t0 = absl::Now();
    auto run = [&](int rank) {
      std::vector<float> x(1000, 0.0f), g(1000, 1.0f);
      NamedTensor n; n.name = "x"; n.value = MakeTensorView(x.data(), {1000}); n.spec = Chunk{0, {{0}, {1}, {2}}};
      auto opt = VAL(client.CreateOptimizer("async", std::vector<NamedTensor>{n}, SGDOptions(1.0), Asynchronous(1000), rank));
      for (int i = 0; i < 100; ++i) {
        auto push = VAL(opt.StartPush()); CHECK_OK(push.Add("x", n.value.sizes.empty() ? ConstTensorView() : ConstTensorView{g.data(), DType::kFloat32, {1000}})); CHECK_OK(push.Finish());
        auto r = VAL(opt.Step());
        auto p = VAL(opt.Pull({n}));
        CHECK(p.version >= r.version);
        for (float v : x) CHECK(v == -static_cast<float>(p.version));
      }
    };
    std::vector<std::thread> ts; for (int i = 0; i < 4; ++i) ts.emplace_back(run, i); for (auto& th : ts) th.join();
    std::printf("async ok %s\n", absl::FormatDuration(absl::Now() - t0).c_str());
    CHECK_OK(client.DeleteOptimizer("async"));
  }
  std::printf("done\n");
}
