// Package page has what the web pages of lull's programs have in common: who may look
// at them and act through them, a form that asks for a token, style and some script.
package page
