#include "tests/cli/reflection_client.h"

#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/empty.pb.h>
#include <google/protobuf/unknown_field_set.h>
#include <google/protobuf/util/json_util.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/server/raw_rpc.h"

namespace nestrec {
namespace {

constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
// Fields of grpc.reflection.v1alpha's messages.
constexpr int kFileByFilename = 3;
constexpr int kFileContainingSymbol = 4;
constexpr int kListServices = 7;
constexpr int kFileDescriptorResponse = 4;
constexpr int kListServicesResponse = 6;

// The values of a length-delimited field of a serialised message.
std::vector<std::string> Values(const std::string& bytes, int field) {
  google::protobuf::Empty message;
  std::vector<std::string> values;
  if (!message.ParseFromString(bytes)) return values;
  const google::protobuf::UnknownFieldSet& fields =
      message.GetReflection()->GetUnknownFields(message);
  for (int i = 0; i < fields.field_count(); ++i) {
    const google::protobuf::UnknownField& entry = fields.field(i);
    if (entry.number() == field &&
        entry.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
      values.push_back(entry.length_delimited());
    }
  }
  return values;
}

absl::Status ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace

ReflectionClient::ReflectionClient(const std::string& address)
    : channel_(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())) {}

absl::StatusOr<std::vector<std::string>> ReflectionClient::List() {
  const RawReply reply = RawStreamCall(channel_, kReflection, BytesField(kListServices, ""));
  if (!reply.status.ok()) return ToStatus(reply.status);
  std::vector<std::string> names;
  for (const std::string& list : Values(reply.bytes, kListServicesResponse)) {
    for (const std::string& service : Values(list, 1)) {
      for (const std::string& name : Values(service, 1)) names.push_back(name);
    }
  }
  return names;
}

absl::Status ReflectionClient::Fetch(int request_field, const std::string& symbol) {
  const RawReply reply = RawStreamCall(channel_, kReflection, BytesField(request_field, symbol));
  if (!reply.status.ok()) return ToStatus(reply.status);
  for (const std::string& response : Values(reply.bytes, kFileDescriptorResponse)) {
    for (const std::string& bytes : Values(response, 1)) {
      google::protobuf::FileDescriptorProto file;
      if (!file.ParseFromString(bytes)) return absl::InternalError("bad file descriptor");
      google::protobuf::FileDescriptorProto known;
      if (database_.FindFileByName(file.name(), &known)) continue;
      for (const std::string& import : file.dependency()) {
        if (!database_.FindFileByName(import, &known)) {
          NESTREC_RETURN_IF_ERROR(Fetch(kFileByFilename, import));
        }
      }
      if (!database_.FindFileByName(file.name(), &known)) database_.Add(file);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<const google::protobuf::ServiceDescriptor*> ReflectionClient::Find(
    const std::string& service) {
  NESTREC_RETURN_IF_ERROR(Fetch(kFileContainingSymbol, service));
  const google::protobuf::ServiceDescriptor* descriptor = pool_.FindServiceByName(service);
  if (descriptor == nullptr) return absl::NotFoundError(absl::StrCat("no service ", service));
  return descriptor;
}

absl::StatusOr<std::vector<std::string>> ReflectionClient::Describe(const std::string& service) {
  NESTREC_ASSIGN_OR_RETURN(const auto* descriptor, Find(service));
  std::vector<std::string> methods;
  for (int i = 0; i < descriptor->method_count(); ++i) {
    methods.push_back(descriptor->method(i)->name());
  }
  return methods;
}

absl::StatusOr<std::string> ReflectionClient::Call(const std::string& method,
                                                   const std::string& json) {
  const size_t slash = method.find('/');
  NESTREC_ASSIGN_OR_RETURN(const auto* service, Find(method.substr(0, slash)));
  const google::protobuf::MethodDescriptor* descriptor =
      service->FindMethodByName(method.substr(slash + 1));
  if (descriptor == nullptr) return absl::NotFoundError(absl::StrCat("no method ", method));
  google::protobuf::DynamicMessageFactory factory(&pool_);
  const std::unique_ptr<google::protobuf::Message> request(
      factory.GetPrototype(descriptor->input_type())->New());
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, request.get());
  if (!parsed.ok()) return absl::InvalidArgumentError(parsed.ToString());
  const RawReply reply =
      RawUnaryCall(channel_, absl::StrCat("/", method), request->SerializeAsString());
  if (!reply.status.ok()) return ToStatus(reply.status);
  const std::unique_ptr<google::protobuf::Message> response(
      factory.GetPrototype(descriptor->output_type())->New());
  if (!response->ParseFromString(reply.bytes)) return absl::InternalError("bad response");
  std::string text;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  const auto printed = google::protobuf::util::MessageToJsonString(*response, &text, options);
  if (!printed.ok()) return absl::InternalError(printed.ToString());
  return text;
}

}  // namespace nestrec
