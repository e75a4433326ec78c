//! One module per command: each reads its arguments, does one thing and says how it ended.

pub mod down;
pub mod drain;
pub mod init;
pub mod plan;
pub mod render;
pub mod roll;
pub mod status;
pub mod up;
pub mod validate;
