// absl::Duration and absl::Time to and from google.protobuf.Duration and Timestamp. Pure functions.
#pragma once

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace nestrec {

inline google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(
      static_cast<int32_t>(absl::IDivDuration(duration, absl::Nanoseconds(1), &duration)));
  return proto;
}

inline absl::Duration FromProto(const google::protobuf::Duration& proto) {
  return absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
}

// Of a time from year 1 to 9999, which the message requires.
inline google::protobuf::Timestamp ToProto(absl::Time time) {
  const google::protobuf::Duration since =
      ToProto(absl::Seconds(absl::ToUnixSeconds(time)) +
              (time - absl::FromUnixSeconds(absl::ToUnixSeconds(time))));
  google::protobuf::Timestamp proto;
  proto.set_seconds(since.seconds());
  proto.set_nanos(since.nanos());
  return proto;
}

}  // namespace nestrec
