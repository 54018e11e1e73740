//! The commands, one file for each.

pub mod attach;
pub mod completion;
pub mod create;
pub mod events;
pub mod exec;
pub mod image;
pub mod info;
pub mod inspect;
pub mod kill;
pub mod logs;
pub mod man;
pub mod pause;
pub mod ps;
pub mod reset_failed;
pub mod restart;
pub mod rm;
pub mod run;
pub mod start;
pub mod stats;
pub mod stop;
pub mod top;
pub mod unpause;
pub mod update;
pub mod version;
pub mod wait;
