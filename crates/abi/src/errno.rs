//! Error numbers that hypercalls return, negated (errno.h).

/// Not permitted.
pub const EPERM: i64 = 1;
/// No such object.
pub const ENOENT: i64 = 2;
/// No such vCPU or domain.
pub const ESRCH: i64 = 3;
/// Bad guest address.
pub const EFAULT: i64 = 14;
/// In use.
pub const EBUSY: i64 = 16;
/// Exists already.
pub const EEXIST: i64 = 17;
/// Invalid argument.
pub const EINVAL: i64 = 22;
/// No room.
pub const ENOSPC: i64 = 28;
/// Not implemented.
pub const ENOSYS: i64 = 38;
/// Time reached already.
pub const ETIME: i64 = 62;
/// Not supported.
pub const EOPNOTSUPP: i64 = 95;
