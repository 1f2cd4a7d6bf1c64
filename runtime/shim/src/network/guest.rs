//! What the guest's agent is told of the network.

use nacre_protocol::agent::{
    ARPNeighbors, AddARPNeighborsRequest, Routes, UpdateInterfaceRequest, UpdateRoutesRequest,
};

use super::{Link, Neighbour, PodNetwork, Route, interface_message, neighbour_messages, route_messages};
use crate::agent::{Agent, AgentError};

/// A pod's network without the taps, which the VMM has.
#[derive(Debug, Default)]
pub struct GuestNetwork {
    links: Vec<Link>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
}

impl From<PodNetwork> for GuestNetwork {
    fn from(network: PodNetwork) -> Self {
        let links = network.interfaces.into_iter().map(|interface| interface.link).collect();
        Self { links, routes: network.routes, neighbours: network.neighbours }
    }
}

impl GuestNetwork {
    /// Tells the agent all of it, in an order in which gateways can be reached.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn send(&self, agent: &Agent) -> Result<(), AgentError> {
        for link in &self.links {
            let interface = Some(interface_message(link)).into();
            agent.update_interface(UpdateInterfaceRequest { interface, ..Default::default() }).await?;
        }
        if !self.neighbours.is_empty() {
            let neighbours =
                ARPNeighbors { ARPNeighbors: neighbour_messages(&self.neighbours), ..Default::default() };
            let neighbors = Some(neighbours).into();
            agent.add_arp_neighbors(AddARPNeighborsRequest { neighbors, ..Default::default() }).await?;
        }
        if !self.routes.is_empty() {
            let routes = Routes { Routes: route_messages(&self.routes), ..Default::default() };
            let routes = Some(routes).into();
            agent.update_routes(UpdateRoutesRequest { routes, ..Default::default() }).await?;
        }
        Ok(())
    }
}
