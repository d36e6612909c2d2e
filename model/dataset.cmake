# nestrec::dataset: a data folder in memory. Included by CMakeLists.txt of this folder.
nestrec_library(dataset
  SRCS catalogue.cc dataset.cc item_record.cc thinned_dataset.cc user_id.cc
  HDRS catalogue.h dataset.h item_record.h thinned_dataset.h user_id.h
  DEPS nestrec::base absl::flat_hash_map absl::function_ref absl::statusor absl::strings
  PRIVATE_DEPS nestrec::json nestrec::xxhash absl::str_format)
