//! The triggers that send events to a function.

/// An HTTP trigger of Lambda. The names match the payloads in events/.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trigger {
    /// An HTTP API of API Gateway, with payloads of version 2.0.
    HttpApi,
    /// A function URL, whose events have the format of an HTTP API's.
    FunctionUrl,
    /// A REST API of API Gateway, or an HTTP API with payloads of version 1.0.
    RestApi,
    /// An Application Load Balancer. It sends all values of a header or only the last one, as its target group is set.
    Alb { multi_value: bool },
    /// VPC Lattice, with events of version 2.
    VpcLattice,
}

impl Trigger {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HttpApi => "http-api",
            Self::FunctionUrl => "function-url",
            Self::RestApi => "rest-api",
            Self::Alb { .. } => "alb",
            Self::VpcLattice => "vpc-lattice",
        }
    }

    /// The most bytes of JSON that an answer may have: the limit of Lambda
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>) or of a load balancer
    /// (<https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html>).
    pub(crate) fn max_answer_bytes(self) -> usize {
        if matches!(self, Self::Alb { .. }) { 1 << 20 } else { 6_291_556 }
    }
}
