//! Playlists as text and data: golden files, round trips, delta updates, hostile input, a second opinion.

mod broadcast;
mod delta;
mod golden;
mod hostile;
mod round_trip;
mod second_parser;
