// An HTTP service around mmcore: text and pictures in, text out, many clients in one batch.
#include <httplib.h>
#include <signal.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include "connection_threads.h"
#include "engine_service.h"
#include "http_api.h"
#include "options.h"

namespace {

/// Gives the port, or -1. cpp-httplib listens with a backlog of 5, so that the sixth of many
/// clients that come at once may be turned away: ask again for the system's limit.
int listen_on(httplib::Server& server, const std::string& host, int port) {
  int listening = -1;
  server.set_socket_options([&listening](int fd) {
    httplib::default_socket_options(fd);
    listening = fd;
  });
  if (port == 0) {
    port = server.bind_to_any_port(host);
  } else if (!server.bind_to_port(host, port)) {
    return -1;
  }
  if (port > 0) listen(listening, SOMAXCONN);
  return port;
}

}  // namespace

int main(int argc, char** argv) {
  int status = 0;
  const auto options = service::parse_options(argc, argv, status);
  if (!options) return status;

  // Blocked before any thread starts, so that only the wait below takes them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  auto started = service::EngineService::start(*options);
  if (!started.ok()) {
    std::fprintf(stderr, "%s\n", started.status().message().c_str());
    return 1;
  }
  const std::unique_ptr<service::EngineService> engine = std::move(started).value();

  service::HttpCounters counters;
  httplib::Server server;
  server.new_task_queue = [&options] {
    return new service::ConnectionThreads(static_cast<size_t>(options->connections));
  };
  server.set_payload_max_length(static_cast<size_t>(options->max_body_mb) << 20);
  server.set_keep_alive_max_count(1000);
  server.set_tcp_nodelay(true);
  service::add_routes(server, *engine, counters);
  const int port = listen_on(server, options->host, options->port);
  if (port < 0) {
    std::fprintf(stderr, "cannot listen on %s:%d\n", options->host.c_str(), options->port);
    return 1;
  }
  std::thread listener([&server] { server.listen_after_bind(); });
  std::printf("listening on http://%s:%d\n", options->host.c_str(), port);
  std::fflush(stdout);

  int taken = 0;
  sigwait(&signals, &taken);
  std::printf(
      "signal %d: refusing new requests, finishing %lld\n", taken,
      static_cast<long long>(engine->metrics().num_running + engine->metrics().num_waiting));
  std::fflush(stdout);
  const mmcore::Status stopped = engine->stop(std::chrono::seconds(options->drain_s));
  server.stop();
  listener.join();
  const mmcore::EngineMetrics metrics = engine->metrics();
  std::printf("ended: %lld unfinished, %lld blocks in use, %lld pins\n",
              static_cast<long long>(metrics.num_running + metrics.num_waiting),
              static_cast<long long>(metrics.blocks_used),
              static_cast<long long>(metrics.encoder_entries_pinned));
  return stopped.ok() ? 0 : 1;
}
