package delivery

import "waybill/platform/reconcile"

// MessagesLoop is the reconciler of messages.
func (c *Courier) MessagesLoop() *reconcile.Loop { return c.messages }
