//! The limits of the users service; the README lists them.

/// Longest username, in characters.
pub const USERNAME_MAX: usize = 64;
/// Longest e-mail address, in bytes (RFC 5321, 4.5.3.1.3, less the angle brackets).
pub const EMAIL_MAX: usize = 254;
/// Largest balance: the largest integer that every JSON reader takes without loss (RFC 8259, 6).
pub const POINTS_MAX: i64 = (1 << 53) - 1;
