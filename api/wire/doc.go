// Package wire turns kvd's vocabulary (package kv) into its protocol buffers and back, where more than one
// package needs it: headers, descriptors and errors, and the codec of every connection.
//
// Errors travel in three shapes that carry the same three things (a status code, a message, an ErrorDetail): the
// status of a call, a PipelineError in a stream, and a PipelineError between nodes. All are made by FromError and
// read by ToError, so that an error that was forwarded twice says what it said at first:
//
//	kv error --FromError--> PipelineError --Status--> status of a call
//	kv error <--ToError---- PipelineError <--FromStatus--
package wire
