// What grpcurl does, for machines without it: lists and describes a server's services by reflection
// and calls a method with JSON, knowing nothing of the server's protos.
//
// Not thread-safe.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor_database.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nestrec {

class ReflectionClient {
 public:
  explicit ReflectionClient(const std::string& address);

  // Names of the services.
  absl::StatusOr<std::vector<std::string>> List();
  // The methods' names of a service.
  absl::StatusOr<std::vector<std::string>> Describe(const std::string& service);
  // Calls "package.Service/Method" with a JSON request; the response as JSON.
  absl::StatusOr<std::string> Call(const std::string& method, const std::string& json);

 private:
  absl::StatusOr<const google::protobuf::ServiceDescriptor*> Find(const std::string& service);
  // Adds the file that defines `symbol`, and what it imports, to the pool.
  absl::Status Fetch(int request_field, const std::string& symbol);

  std::shared_ptr<grpc::Channel> channel_;
  google::protobuf::SimpleDescriptorDatabase database_;
  google::protobuf::DescriptorPool pool_{&database_};
};

}  // namespace nestrec
