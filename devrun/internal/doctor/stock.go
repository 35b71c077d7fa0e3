package doctor

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"waybill/contracts"
)

// settled is the key, in a stock's held pieces, for all orders without a mark of their own. Order ids contain no colon.
const settled = ":settled"

// counted is the stock of a product with what the reservations say.
type counted struct {
	stockDoc

	held, shipped int // by the marks of the stock, and by the reservations of the orders without one
}

// stocks compares the stock of every product with the reservations. It reads both in one snapshot of the store. In it they agree,
// also with work in flight: an order's mark at a product counts if it has one, otherwise its reservation.
func (f *folder) stocks(ctx context.Context) (found []Finding, products int, err error) {
	if f.fulfillment == nil {
		return nil, 0, nil
	}
	s := f.fulfillment
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, 0, fmt.Errorf("read the stock: %w", err)
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	each := func(prefix string, visit func(r row)) (err error) {
		from := s.app + "||" + prefix
		rows, err := tx.QueryContext(ctx, "SELECT "+columns+" FROM state WHERE key > ? AND key < ? AND "+alive+" ORDER BY key", from, upTo(from))
		if err != nil {
			return fmt.Errorf("read the stock: %w", err)
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			r, err := s.scan(rows)
			if err != nil {
				return err
			}
			visit(r)
		}
		return rows.Err()
	}
	stocks := map[string]*counted{}
	var order []string
	err = each("stock:", func(r row) {
		c := &counted{}
		if err := json.Unmarshal(r.value, &c.stockDoc); err != nil {
			found = append(found, unreadableFinding("", unreadable{s.app, r.key, err}, r.written))
			return
		}
		c.ProductID = strings.TrimPrefix(r.key, "stock:")
		for id, quantity := range c.Held {
			if id != settled {
				c.held += quantity
			}
		}
		for _, quantity := range c.Moved {
			c.shipped += quantity
		}
		stocks[c.ProductID], order = c, append(order, c.ProductID)
	})
	if err != nil {
		return nil, 0, err
	}
	unknown, expires := false, false
	err = each("reservation:", func(r row) {
		var d reservationDoc
		if err := json.Unmarshal(r.value, &d); err != nil {
			unknown = true // it is reported with its order
			return
		}
		expires = expires || r.expires
		id := strings.TrimPrefix(r.key, "reservation:")
		for product, quantity := range d.Lines {
			if c := stocks[product]; c != nil {
				c.count(id, quantity, &d)
			}
		}
	})
	if err != nil {
		return nil, 0, err
	}
	for _, product := range order {
		found = append(found, stocks[product].examine(unknown, expires)...)
	}
	return found, len(order), nil
}

// count adds the reservation of an order that has no mark.
func (c *counted) count(order string, quantity int, r *reservationDoc) {
	if _, marked := c.Held[order]; marked {
		return
	}
	if _, marked := c.Moved[order]; marked {
		return
	}
	state := r.State
	if state == releasing || state == unshipping {
		state = r.Was
	}
	switch {
	case state == shipped, state == reserved && !r.Derives: // in former releases every order that held something had a mark
		c.shipped += quantity
	case state == reserved:
		c.held += quantity
	}
}

func (c *counted) examine(unknown, expires bool) (found []Finding) {
	where := []string{contracts.AppFulfillment + " stock:" + c.ProductID, contracts.AppFulfillment + " reservation:*"}
	report := func(code, format string, args ...any) {
		found = append(found, Finding{
			Code: code, Product: c.ProductID, What: fmt.Sprintf(format, args...), Where: where, Why: whyStock,
			Mend: mendHand + "Count " + c.ProductID + " and set its stock (docs/operations.md, Count the stock). Pieces that the stock holds for no order stay held until the document is corrected by hand while the system is stopped.",
		})
	}
	total := 0
	for _, quantity := range c.Held {
		total += quantity
	}
	if c.OnHand < 0 {
		report(CodeOnHandNegative, "There are %d pieces on hand.", c.OnHand)
	}
	if c.OnHand >= 0 && total > c.OnHand {
		report(CodeOversold, "Orders hold %d pieces, and %d are on hand.", total, c.OnHand)
	}
	if unknown {
		return found // a reservation cannot be read
	}
	if total != c.held {
		report(CodeReservedDiffers, "The stock holds %d pieces for orders, and the reservations say %d.", total, c.held)
	}
	if c.Shipped < c.shipped || c.Shipped > c.shipped && !expires {
		report(CodeShippedDiffers, "The stock says that %d pieces were shipped, and the reservations say %d.", c.Shipped, c.shipped)
	}
	return found
}
