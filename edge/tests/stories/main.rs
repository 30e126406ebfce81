//! What an edge does between an origin and its viewers, over real sockets: an origin made of a counter, viewers made of
//! single requests.

mod coalesce;
mod cut;
mod foreign;
mod h3;
mod origin;
mod outage;
mod relay;
mod routes;
mod site;
mod tls;
mod unknown;
