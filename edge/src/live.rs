//! Live renditions: one follower per rendition in use reads the origin's playlist; every viewer waits on what it knows.

pub mod fit;
pub mod follower;
pub mod followers;
pub mod hold;
pub mod view;
