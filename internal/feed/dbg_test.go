package feed
import ("testing";"fmt";"github.com/superfly/ltx")
func TestDbg(t *testing.T){
	js, h, c := start(t)
	full := c.Full(t, 10)
	c.Publish(t, js, full, 0)
	s := c.Step(t,3)
	c.Publish(t, js, s, 700)
	s3 := c.Step(t,3)
	c.Publish(t, js, s3, 100)
	h.seek(ltx.Pos{}, 0)
	h.next(full)
	for i:=0;i<4;i++ {
	h.connect(t.Context())
	d, err := h.receive(t.Context())
	fmt.Println(d.seq, err, d.msg.Headers(), len(d.msg.Data()))
	f, err := h.handle(d)
	fmt.Println(f, err, h.asm.busy(), h.asm.next, h.seq, h.stats.replayed.Load(), h.stats.stale.Load())
	}
}
