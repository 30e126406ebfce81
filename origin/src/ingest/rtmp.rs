pub mod amf0;
pub mod chunk;
