//! Protobuf messages on the wire. Unlike tonic's own codec, one that cannot be read is the client's fault, not ours.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::status;
use crate::wire::guard;
use crate::wire::proto::message::ModelInferRequest;

pub struct Codec<Out, In> {
    marker: PhantomData<(Out, In)>,
}

impl<Out, In> Default for Codec<Out, In> {
    fn default() -> Self {
        Codec {
            marker: PhantomData,
        }
    }
}

impl<Out, In> tonic::codec::Codec for Codec<Out, In>
where
    Out: Message + Send + 'static,
    In: Message + Default + Send + 'static,
{
    type Encode = Out;
    type Decode = In;
    type Encoder = Writer<Out>;
    type Decoder = Reader<In>;

    fn encoder(&mut self) -> Writer<Out> {
        Writer(PhantomData)
    }

    fn decoder(&mut self) -> Reader<In> {
        Reader(PhantomData)
    }
}

pub struct Writer<Out>(PhantomData<Out>);

impl<Out: Message> Encoder for Writer<Out> {
    type Item = Out;
    type Error = tonic::Status;

    fn encode(&mut self, message: Out, into: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        message
            .encode(into)
            .map_err(|error| tonic::Status::internal(error.to_string()))
    }
}

pub struct Reader<In>(PhantomData<In>);

impl<In: Message + Default + 'static> Decoder for Reader<In> {
    type Item = In;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<In>, tonic::Status> {
        // Raw tensors become views of these bytes.
        let bytes = from.copy_to_bytes(from.remaining());
        if TypeId::of::<In>() == TypeId::of::<ModelInferRequest>() {
            guard::check(&bytes).map_err(status::of)?;
        }
        In::decode(bytes).map(Some).map_err(|error| {
            tonic::Status::invalid_argument(format!("the message cannot be read: {error}"))
        })
    }
}
