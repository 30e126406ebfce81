//! What an edge does between an origin and its viewers, over real sockets: an origin made of a counter, viewers made of
//! single requests.

mod coalesce;
mod cut;
mod directory;
mod h3;
mod hostile;
mod limits;
mod origin;
mod outage;
mod relay;
mod reload;
mod signed;
mod site;
mod tls;
mod unknown;
