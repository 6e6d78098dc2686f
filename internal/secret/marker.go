package secret

// A Part is a piece of what is to be written: either Text or Value is set.
type Part struct {
	Text  string
	Value Value
}

// prefixLen letters are common to all markers of a seal, so that one search
// finds every candidate; keyLen letters tell its markers apart.
const (
	prefixLen = 4
	keyLen    = MinValue
)

type markerKey [keyLen]byte

// An entry is what a marker stands for: a block of the store with as many
// encoded bytes as the marker has letters. Until it is spent it holds a
// reference to the block.
type entry struct {
	marker string
	off    int
	key    mask
	spent  bool
}

// RFC 4648 §4 and §5.
const (
	alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	stdLetters   = alphanumeric + "+/"
	urlLetters   = alphanumeric + "-_"
)

// randomText returns n random letters and digits.
func randomText(n int) []byte {
	out := make([]byte, n)
	randomOf(out, alphanumeric)
	return out
}
