use bytes::Bytes;

use super::*;
use crate::codec::{aac::AacConfig, avc::AvcConfig};
