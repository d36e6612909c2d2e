// recommend <host:port> <tier> <item id> ...: prints what fits, best first.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>

#include "nestrec/v1/recommend.grpc.pb.h"

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::ifstream file("../service_config.json");
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(std::string(std::istreambuf_iterator<char>(file), {}));
  const auto service = nestrec::v1::RecommendService::NewStub(
      grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), arguments));

  nestrec::v1::RecommendRequest request;
  request.set_tier(argv[2]);
  request.set_k(5);
  for (int i = 3; i < argc; ++i) request.add_history_item_ids(argv[i]);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  nestrec::v1::RecommendResponse response;
  if (const auto status = service->Recommend(&context, request, &response); !status.ok()) {
    std::cerr << status.error_message() << "\n";
    return 1;
  }
  for (const auto& item : response.items()) {
    const auto title = item.fields().find("title");
    std::cout << item.item_id() << "\t" << (title == item.fields().end() ? "" : title->second)
              << "\n";
  }
}
