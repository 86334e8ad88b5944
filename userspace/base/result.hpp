// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Errors as values: what a function returns when it can fail, and the macro that passes an error up.

#include <cerrno>
#include <expected>
#include <string>
#include <system_error>
#include <utility>

namespace agentnic {

/// How a program ends; the values are its exit status (docs/man). 4 and 5 are not errors.
enum class Exit {
  Done = 0,
  Failed = 1,       ///< no permission, a foreign program in the way, a call that failed
  BadInput = 2,     ///< bad usage or input, an interface or file that is not there included
  Unsupported = 3,  ///< the kernel or the hardware lacks what was required
};

/// One failure, told once, where the object is known.
struct Error {
  Exit exit = Exit::Failed;
  std::string what;  ///< verb, object, parameters, reason; lower case, no full stop
  std::string hint;  ///< what to try, or empty

  /// A failed system or library call: `what` gets the text of `code`, an errno of either sign.
  /// EPERM and EACCES become a failure, EOPNOTSUPP and ENOSYS become "unsupported".
  static Error from_errno(int code, std::string what, std::string hint = {});

  /// `what; hint: hint`, one line.
  [[nodiscard]] std::string text() const;
};

/// A value or an Error. Never ignored.
template <typename T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
};

using Status = Result<void>;

inline std::unexpected<Error> fail(Error error) { return std::unexpected<Error>(std::move(error)); }
inline std::unexpected<Error> fail(Exit exit, std::string what, std::string hint = {}) {
  return fail(Error{exit, std::move(what), std::move(hint)});
}
inline std::unexpected<Error> fail_errno(int code, std::string what, std::string hint = {}) {
  return fail(Error::from_errno(code, std::move(what), std::move(hint)));
}

}  // namespace agentnic

#define ANIC_TRY_NAMED(name, expr)                      \
  __extension__({                                       \
    auto name = (expr);                                 \
    if (!name) {                                        \
      return ::agentnic::fail(std::move(name.error())); \
    }                                                   \
    *std::move(name);                                   \
  })
#define ANIC_TRY_COUNTED(count, expr) ANIC_TRY_NAMED(anic_try_##count, expr)
#define ANIC_TRY_COUNT(count, expr) ANIC_TRY_COUNTED(count, expr)

/// The value of a Result, or a return from the enclosing function with its error.
#define ANIC_TRY(expr) ANIC_TRY_COUNT(__COUNTER__, expr)
