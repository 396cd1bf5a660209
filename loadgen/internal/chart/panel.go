package chart

import (
	"bytes"
	"fmt"
	"html/template"
	"io"

	gochart "github.com/wcharczuk/go-chart/v2"
)

// Panel is a chart with a title and a legend, one of several in a picture.
type Panel struct {
	Title string
	Y     Axis
	Lines []Line
}

// panelHead is the height of a title and a legend, in pixels.
const panelHead = 56

// WritePanels writes a picture of its own: charts one below the other, over the same x
// axis. A chart in which there is nothing to draw is an error.
func WritePanels(w io.Writer, x Axis, panels ...Panel) error {
	wide := shapes[0]
	each := panelHead + wide.height
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" class="chart"><style>%s</style>`+"\n"+
		`<rect width="100%%" height="100%%" class="sheet"/>`+"\n", wide.width, each*len(panels), Style)
	for i, p := range panels {
		if !drawable(p.Lines) {
			return fmt.Errorf("chart: draw %q: it has less than two points", p.Title)
		}
		top := i * each
		fmt.Fprintf(&b, `<text x="30" y="%d" class="title">%s</text>`+"\n", top+24, template.HTMLEscapeString(p.Title))
		for j, l := range p.Lines {
			left := 30 + j*(wide.width-60)/len(p.Lines)
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="18" height="4" class="%s"/><text x="%d" y="%d" class="legend">%s</text>`+"\n",
				left, top+40, class(p.Lines, j), left+24, top+46, template.HTMLEscapeString(l.Name))
		}
		var svg bytes.Buffer
		if err := wide.draw(x, p.Y, Axis{}, p.Lines).Render(gochart.SVG, &svg); err != nil {
			return fmt.Errorf("chart: draw %q: %w", p.Title, err)
		}
		placed := fmt.Sprintf(`<svg y="%d" width="%d" height="%d" `, top+panelHead, wide.width, wide.height)
		b.Write(bytes.Replace(svg.Bytes(), []byte("<svg "), []byte(placed), 1))
		b.WriteByte('\n')
	}
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
}
