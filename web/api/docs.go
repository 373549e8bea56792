package api

import (
	_ "embed"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
)

//go:embed docs.html
var docsText string

//go:embed docs.css
var docsStyle []byte

var docsPage = template.Must(template.New("docs").Parse(docsText))

type docsOperation struct {
	ID, Method, Path, Summary, Role string
	Parameters                      []docsField
	Body                            []docsField
	Curl                            string
}

type docsField struct {
	Name, In, Type, Doc string
	Required            bool
}

type docsTag struct {
	Name       string
	Operations []docsOperation
}

// docsRoutes serve a page about the API that is made from its document, with
// no script and nothing from another host.
func (a *API) docsRoutes() {
	page := a.docs()
	a.engine.GET(Prefix+"/docs", func(c *gin.Context) {
		c.Header("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		c.Header("Cache-Control", "no-cache")
		c.Data(http.StatusOK, "text/html; charset=utf-8", page)
	})
	a.engine.GET(Prefix+"/docs.css", func(c *gin.Context) {
		c.Header("Cache-Control", "no-cache")
		c.Data(http.StatusOK, "text/css; charset=utf-8", docsStyle)
	})
}

func (a *API) docs() []byte {
	document := a.huma.OpenAPI()
	byTag := map[string][]docsOperation{}
	for path, item := range document.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil && len(op.Tags) > 0 {
				byTag[op.Tags[0]] = append(byTag[op.Tags[0]], describe(document.Components.Schemas, path, op))
			}
		}
	}
	var tags []docsTag
	for name, operations := range byTag {
		slices.SortFunc(operations, func(x, y docsOperation) int { return strings.Compare(x.Path+x.Method, y.Path+y.Method) })
		tags = append(tags, docsTag{name, operations})
	}
	slices.SortFunc(tags, func(x, y docsTag) int { return strings.Compare(x.Name, y.Name) })
	var out strings.Builder
	err := docsPage.Execute(&out, map[string]any{"Info": document.Info, "Tags": tags, "Prefix": Prefix})
	if err != nil {
		a.deps.Log.Error("page about the API was not made", "error", err)
	}
	return []byte(out.String())
}

func describe(registry huma.Registry, path string, op *huma.Operation) docsOperation {
	d := docsOperation{ID: op.OperationID, Method: op.Method, Path: Prefix + path, Summary: op.Summary, Role: "nobody needs to be signed in"}
	if need := access[op.OperationID]; !need.public {
		d.Role = "role " + string(need.role)
	}
	for _, p := range op.Parameters {
		d.Parameters = append(d.Parameters, docsField{p.Name, p.In, typeName(p.Schema), p.Description, p.Required})
	}
	curl := []string{"curl --cacert ca.pem -H \"Authorization: Bearer $CORDON_TOKEN\""}
	if op.Method != http.MethodGet {
		curl = append(curl, "-X "+op.Method)
	}
	if op.RequestBody != nil {
		for kind, media := range op.RequestBody.Content {
			d.Body = fields(registry, media.Schema)
			curl = append(curl, "-H \"Content-Type: "+kind+"\" --data @body")
		}
	}
	d.Curl = strings.Join(append(curl, "\"$CORDON_URL"+d.Path+"\""), " ")
	return d
}

func fields(registry huma.Registry, s *huma.Schema) (all []docsField) {
	if s == nil {
		return nil
	}
	if s.Ref != "" {
		s = registry.SchemaFromRef(s.Ref)
	}
	for name, p := range s.Properties {
		all = append(all, docsField{name, "body", typeName(p), p.Description, slices.Contains(s.Required, name)})
	}
	slices.SortFunc(all, func(x, y docsField) int { return strings.Compare(x.Name, y.Name) })
	return all
}

func typeName(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
	case s.Type == huma.TypeArray:
		return "list of " + typeName(s.Items)
	case len(s.Enum) > 0:
		var names []string
		for _, e := range s.Enum {
			if name, ok := e.(string); ok {
				names = append(names, name)
			}
		}
		return strings.Join(names, " | ")
	case s.Format != "":
		return s.Type + " (" + s.Format + ")"
	}
	return s.Type
}
