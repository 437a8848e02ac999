#include "sched/waiting_queue.h"

#include <gtest/gtest.h>

namespace mmcore {
namespace {

Sequence make(RequestId id, int32_t priority) {
  Request request;
  request.prompt_token_ids = {1};
  request.priority = priority;
  return Sequence(id, std::move(request), 4, 10, {});
}

TEST(WaitingQueue, orders_by_priority_then_arrival) {
  Sequence a = make(1, 5), b = make(2, -1), c = make(3, 5), d = make(4, -1);
  WaitingQueue queue;
  for (Sequence* s : {&c, &d, &a, &b}) queue.insert(s);
  std::vector<RequestId> order;
  while (!queue.empty()) {
    order.push_back(queue.head()->order.id);
    queue.erase(queue.head());
  }
  EXPECT_EQ(order, (std::vector<RequestId>{2, 4, 1, 3}));
}

TEST(WaitingQueue, a_sequence_returns_to_its_old_place) {
  Sequence a = make(1, 0), b = make(2, 0), c = make(3, 0);
  WaitingQueue queue;
  for (Sequence* s : {&a, &b, &c}) queue.insert(s);
  queue.erase(&a);
  queue.erase(&b);
  queue.insert(&b);
  EXPECT_EQ(queue.head(), &b);
  EXPECT_EQ(queue.size(), 2);
}

}  // namespace
}  // namespace mmcore
